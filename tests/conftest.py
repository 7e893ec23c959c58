"""What holds for every test."""

import torch

# Tests run side by side, and more threads than cores wait for each other.
torch.set_num_threads(1)
