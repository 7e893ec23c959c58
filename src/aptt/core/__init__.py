"""The ground floor: what every loss shares. Torch and the standard library only; not public."""
