"""Mutants that compute the same: by file, line and kind, with the reason."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("core/linear/run.py", "@dataclass(frozen=True)", "flip"): "nobody writes to it",
    (
        "core/pairs/walk.py",
        "wanted = [t for t, want in zip(pairs, wants, strict=True) if want and t is not None]",
        "flip",
    ): "both are as long",
    (
        "loss/classification/terms.py",
        "return {n: t.reshape(shape) for n, t in zip(names, (loss, squares, seen), strict=True)}",
        "flip",
    ): "both are as long",
    (
        "core/skeleton.py",
        "if plainly or not (torch.is_grad_enabled() and x.requires_grad):",
        "And",
    ): "a checkpoint without a gradient: time",
    ("core/streaming.py", "if self.block is None:", "branches"): "a hint, that saves a product",
    (
        "core/pairwise.py",
        "g, h = (goals[..., k].unsqueeze(-2) for k in (axis, axis + 2))",
        "Add",
    ): "of four numbers, counted from the end",
    (
        "loss/classification/levels.py",
        "LADDER = Formula(_result, _step, ahead=True, block=2**17)",
        "off by one",
    ): "size of a block: time",
    (
        "core/spectral.py",
        "SPECTRAL = Formula(_result, _step, ahead=True, block=2**16)",
        "drop block=",
    ): "size of a block: time",
    (
        "loss/keypoint/similarity.py",
        "return torch.where(total > 0, total, 1.0)",
        "scale",
    ): "what 0 is divided by",
    (
        "core/transform.py",
        "None if t is None else t.to(dtype).to(device, non_blocking=ahead)",
        "drop non_blocking=",
    ): "time",
    (
        "loss/mtp_loss/heads.py",
        'wanted = " or ".join(map(str, sorted(lengths, reverse=True)))',
        "drop reverse=",
    ): "the order of words in an error",
    (
        "loss/focal/focal.py",
        "ignored(ignore_index, indexed=True)",
        "flip",
    ): "only checked: what it gives is not read",
    (
        "loss/focal/sigmoid.py",
        "y = torch.where(keep, y, 0)",
        "drop",
    ): "what is ignored weighs nothing, whatever it holds",
    (
        "loss/snr/esr.py",
        "return None if known else value.to(x.dtype), dx if n is None else present(dx, n)",
        "branches",
    ): "both signals are 0 beyond their lengths already",
    (
        "loss/adversarial/kinds.py",
        "slope = torch.sigmoid(sign * x) * sign",
        "Mult",
    ): "1 and -1 are their own reciprocals",
    (
        "loss/aligned/formula.py",
        "return Formula(partial(_result, ask), partial(_step, ask), ahead=True, block=2**17)",
        "drop block=",
    ): "size of a block: time",
    (
        "loss/bbox/nwd.py",
        "_NWD = Formula(_result, ahead=True, block=BLOCK)",
        "drop block=",
    ): "size of a block: time",
    (
        "loss/aligned/ia_bce.py",
        "missing = torch.where(some, -expm1(log_t), 1.0).clamp(max=1 - floor)",
        "scale",
    ): "it is cut at 1",
    (
        "loss/classification/asymmetric.py",
        "over = torch.relu("
        "torch.where(x > 0, (1 - margin) - away, torch.sigmoid(held(x)) - margin))",
        "Gt",
    ): "at 0, both have all digits",
    (
        "loss/distill/features.py",
        "f = f.masked_fill((weight == 0).view(-1, 1, 1), 0.0)",
        "scale",
    ): "what is removed weighs nothing, whatever it holds",
    (
        "loss/heat/formulas.py",
        '"mse": Formula(_square_result, _square_step, ahead=True, block=2**17),',
        "Pow",
    ): "size of a block: time",
    (
        "loss/heat/render.py",
        "points = torch.where(seen.unsqueeze(-1), points, 0.0)",
        "scale",
    ): "the map of what is hidden is 0, wherever it lies",
    (
        "loss/mtp_loss/heads.py",
        'wanted = " or ".join(map(str, sorted(lengths, reverse=True)))',
        "flip",
    ): "the order of words in an error",
    (
        "loss/policy/averages.py",
        "x = widen(log_prob[:0])",
        "off by one",
    ): "its dtype and its device alone are read",
    ("loss/rmse/formulas.py", "ROOT = Formula(", "drop few="): "the same in fewer steps: time",
    (
        "loss/classification/binary.py",
        'pos_weight = on_class_axis(check_vector("pos_weight", pos_weight, x, signed=True), x)',
        "drop signed=",
    ): "it is held to that before",
    (
        "loss/classification/chance.py",
        "POWER = Formula(_power_result, _power_step, _stats, block=2**19)",
        "Pow",
    ): "size of a block: time",
    (
        "loss/focal/softmax.py",
        "SHARES = Formula(_soft_result, _soft_step, _soft_stats, block=2**18)",
        "Pow",
    ): "size of a block: time",
    (
        "loss/bbox/distances.py",
        "longer = torch.threshold(reduce(torch.maximum, o.span).detach(), 0.0, 1.0)",
        "scale",
    ): "what 0 is divided by",
    (
        "loss/bbox/probiou.py",
        "loss = torch.where(none, 1, rise(torch.where(none, 1, loss))).sqrt()",
        "off by one",
    ): "0 takes its place",
    (
        "loss/bbox/rotated.py",
        "missed, union = m.outside + m.missing, torch.threshold(m.goal + m.outside, 0.0, 1.0)",
        "scale",
    ): "what 0 is divided by",
    ("loss/bbox/family.py", "near = o.miss < 0.5", "Lt"): "at a half, both have all digits",
    (
        "loss/classification/shares.py",
        "spread = open * (form.smoothing / open.sum(1, keepdim=True).clamp(min=1))",
        "off by one",
    ): "a class that is alone costs nothing, whatever its share",
    (
        "loss/segmentation/generalized.py",
        "mode, class_weight, weight, ignore_index, background, absent, 0.0, pool, reduction",
        "scale",
    ): "a smoothing that is not read",
    ("core/linear/by_vocabulary.py", "@dataclass(frozen=True)", "flip"): "nobody writes to it",
    (
        "core/pairs/opaque.py",
        "return (*(g if want else None for g, want in zip(every, wants, strict=True)), "
        "*[None] * 8)",
        "drop strict=",
    ): "both are as long",
    (
        "core/blocks.py",
        "if row > size and x.ndim == 3:",
        "Gt",
    ): "a sample as large as a block is one either way",
    (
        "core/chances.py",
        "high = x > 0",
        "off by one",
    ): "either way keeps its digits between 0 and 1",
    (
        "core/slopes.py",
        "boxes = columns[0].new_empty(len(columns[0]), len(columns))",
        "off by one",
    ): "each column is as long",
    (
        "core/linear/head.py",
        "_BLOCK, _PART = 2**18, 2**22 # on a CPU",
        "Pow",
    ): "size of a block: time",
    (
        "core/linear/by_tokens.py",
        "few = max(self.block // max(classes, 1), 1)",
        "off by one",
    ): "size of a block: time",
    (
        "core/mining.py",
        "n, step = len(x), chunk or max(_PAIRS // max(len(y), 1), 1)",
        "FloorDiv",
    ): "size of a chunk: memory",
    (
        "core/pairs/walk.py",
        "nothing = (x.sum() + y.sum()) * scale * 0.0",
        "scale",
    ): "of no row there is no value, and no row is without a column",
    (
        "core/frames.py",
        "part = part + _image(part, at, low, pad, -1) + _image(part, at, last - low, pad)",
        "off by one",
    ): "of a side only the sign is read",
    (
        "core/divergence.py",
        "return ratio.nan_to_num_(nan=0.0, posinf=masked, neginf=-_FAR)",
        "drop nan=",
    ): "what it is without",
    (
        "core/pairs/formulas.py",
        "NEGATIVES = PairFormula(_negatives, _negatives_slope, 2, many=False)",
        "flip",
    ): "its positives are not read",
    (
        "loss/skeleton/cl_dice.py",
        "faint = both.abs() < _FAINT",
        "Lt",
    ): "at the limit, both have all digits",
    (
        "loss/classification/binary.py",
        "if pos_weight is None and (smoothing is not None or t.is_floating_point()):",
        "Or",
    ): "the other form is the same in more steps: time",
    (
        "core/linear/opaque.py",
        "g.to(t.dtype) for g, t in zip(grads, head, strict=True) "
        "if g is not None and t is not None",
        "drop strict=",
    ): "both are as long",
    (
        "core/compressed.py",
        "COMPRESSED = Formula(_result, ahead=True, block=2**16)",
        "drop block=",
    ): "size of a block: time",
    (
        "loss/snr/sa_sdr.py",
        "check_options(False, cap, silent, reduction)",
        "flip",
    ): "only checked, and both are a flag",
    ("loss/rmse/formulas.py", "ROOT = Formula(", "drop ahead="): "when its slope is computed: time",
    (
        "loss/keypoint/simcc.py",
        "return Form(temperature, beta=0.0, soft=1.0)",
        "scale",
    ): "a beta that is not read",
    ("core/formula.py", "@dataclass(frozen=True)", "drop frozen="): "nobody writes to it",
    ("core/streaming.py", "@dataclass(frozen=True)", "drop frozen="): "nobody writes to it",
    (
        "core/linear/head.py",
        "return _LARGE_PART if on_accelerator(t) else _PART",
        "branches",
    ): "size of a part: time",
    (
        "loss/skeleton/sums.py",
        "x, t = torch.where(w == 0, 0.0, x), torch.where(w == 0, 0.0, t)",
        "scale",
    ): "a removed logit weighs nothing, whatever it is",
    (
        "loss/skeleton/sums.py",
        "yes, odds = torch.where(w == 0, 0.0, yes), torch.where(w == 0, -torch.inf, odds)",
        "scale",
    ): "a removed probability weighs nothing, whatever it is",
    (
        "loss/matching/layers.py",
        "matches < 0, -1",
        "drop USub",
    ): "any vote counts as much, and more where there are several layers",
    (
        "core/overlap/sums.py",
        "t = _indices(t)",
        "drop",
    ): "the formula of shares computes the same: time",
    (
        "loss/segmentation/iou.py",
        "if beyond or (corners and bool((target.sum(1) > 1.001).all())):",
        "Gt",
    ): "a limit between what shares and what boxes add up to",
    (
        "loss/snr/si_sdr.py",
        "power = power + tiny",
        "Add",
    ): "of energies near the least number alone",
    (
        "core/pairs/run.py",
        "_PAIRS, _MANY_PAIRS = 2**22, 2**26 # in a chunk; on an accelerator",
        "Pow",
    ): "size of a chunk: memory",
    (
        "core/pairs/run.py",
        "_PAIRS, _MANY_PAIRS = 2**22, 2**26 # in a chunk; on an accelerator",
        "off by one",
    ): "size of a chunk: memory",
    **{
        (file, line, kind): "when its slope is computed, or the size of a block: time"
        for file, line, kinds in (
            (
                "loss/bbox/family.py",
                "Formula(result, None if slopes is None else step, ahead=True, block=BLOCK),",
                ("drop ahead=", "flip", "drop block="),
            ),
            (
                "loss/heat/formulas.py",
                '"mse": Formula(_square_result, _square_step, ahead=True, block=2**17),',
                ("drop ahead=", "flip", "drop block=", "off by one"),
            ),
            (
                "loss/regression/crps.py",
                "GAUSSIAN = Formula(_gaussian, _gaussian_step, ahead=True, block=2**17)",
                ("drop ahead=", "flip", "drop block=", "off by one", "Pow"),
            ),
            (
                "loss/regression/huber.py",
                "HUBER = Formula(_huber, _huber_step, ahead=True)",
                ("drop ahead=", "flip"),
            ),
        )
        for kind in kinds
    },
}
