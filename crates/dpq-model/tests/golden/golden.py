"""Writes golden.json: the formulas of the papers in NumPy and float64, for the tests of quantize, loss, objective and attack.

Written from the formulas, sharing nothing with the crate. Gradients are central differences, so they hold for whatever
the formulas say, derivatives through the residuals included; choices of codewords are far enough from ties not to change
within a step. Run with Python 3 and NumPy: `python3 golden.py`.
"""

import json
from pathlib import Path

import numpy as np

N, D, K, L, C = 6, 5, 4, 3, 4
STEP = 1e-5
TIE = 1e-3
rng = np.random.default_rng(20190816)


def draw(*shape, scale=1.0):
    """Normal numbers with three decimals, each equal to a float32."""
    return np.round(scale * rng.standard_normal(shape), 3).astype(np.float32).astype(np.float64)


def cosine(a, b):
    return a @ b / np.sqrt(a @ a * (b @ b))


def quantize(x, codebook, assignment, gamma):
    """Codes [L, N], and prefix sums of soft and hard codewords [L, N, D]."""
    codes, soft, hard = np.zeros((L, N), int), np.zeros((L, N, D)), np.zeros((L, N, D))
    for n in range(N):
        residual = x[n]
        for level in range(L):
            words = codebook[level]
            if assignment == "euclidean":
                fit = np.array([-np.sum((residual - word) ** 2) for word in words])
            else:
                fit = np.array([cosine(residual, word) for word in words])
            assert np.diff(np.sort(fit))[-1] > TIE, "the choice of a codeword is near a tie: take another seed"
            codes[level, n] = np.argmax(fit)
            weights = np.exp(gamma * (fit - np.max(fit)))
            hard[level, n] = words[codes[level, n]]
            soft[level, n] = weights / np.sum(weights) @ words
            residual = residual - hard[level, n]
    return codes, np.cumsum(soft, axis=0), np.cumsum(hard, axis=0)


def soft_distortion(x, codebook, *options):
    _, soft, _ = quantize(x, codebook, *options)
    return sum(np.mean(np.sum((x - prefix) ** 2, axis=1)) for prefix in soft)


def hard_distortion(x, codebook, *options):
    _, _, hard = quantize(x, codebook, *options)
    return sum(np.mean(np.sum((x - prefix) ** 2, axis=1)) for prefix in hard)


def joint_center(x, codebook, *options):
    _, soft, hard = quantize(x, codebook, *options)
    return np.mean(np.sum((soft[-1] - hard[-1]) ** 2, axis=1))


def classification(logits, labels, multi_label):
    if multi_label:
        sigmoid = 1 / (1 + np.exp(-logits))
        return -np.mean(labels * np.log(sigmoid) + (1 - labels) * np.log(1 - sigmoid))
    probabilities = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
    return -np.mean(np.log(np.sum(labels * probabilities, axis=1)))


def adaptive_margin(x, labels, embeddings, margins):
    total = 0.0
    for n in range(N):
        for i in np.flatnonzero(labels[n]):
            for j in range(C):
                if i == j or margins == "negatives" and labels[n, j]:
                    continue
                delta = 1 - cosine(embeddings[i], embeddings[j])
                hinge = delta - cosine(embeddings[i], x[n]) + cosine(embeddings[j], x[n])
                assert abs(hinge) > TIE, "a hinge is near its corner: take another seed"
                total += max(0.0, hinge)
    return total / (N * C)


def matching(queries, keys, others, temperature):
    """The mean cross-entropy of choosing key i for query i, without other keys that match it."""
    total = 0.0
    for n, query in enumerate(queries):
        exponents = [np.exp(query @ key / temperature) for m, key in enumerate(keys) if not others[n, m]]
        total -= query @ keys[n] / temperature - np.log(sum(exponents))
    return total / len(queries)


def mopq(queries, keys, codebook, start, others, temperature, keys_weight, reconstruction):
    """The loss of MoPQ. The approximations of `start` move with the keys: straight through the choice."""
    _, _, hard = quantize(start, codebook, "euclidean", 1.0)
    codes = np.mean([matching(queries, prefix + keys - start, others, temperature) for prefix in hard])
    error = sum(np.mean(np.sum((keys - prefix) ** 2, axis=1)) for prefix in hard)
    return keys_weight * matching(queries, keys, others, temperature) + codes + reconstruction * error


def soft_codes(x, codebook, form, assignment, gamma):
    """Soft codes [L, N, K]: of the residuals of hard codewords, or of the parts of x."""
    result = np.zeros((len(codebook), len(x), codebook.shape[1]))
    for n, row in enumerate(x):
        residual = row
        for level, words in enumerate(codebook):
            if form == "product":
                width = words.shape[1]
                residual = row[level * width : (level + 1) * width]
            if assignment == "euclidean":
                fit = np.array([-np.sum((residual - word) ** 2) for word in words])
            else:
                fit = np.array([cosine(residual, word) for word in words])
            assert np.diff(np.sort(fit))[-1] > TIE, "the choice of a codeword is near a tie: take another seed"
            result[level, n] = np.exp(gamma * fit) / np.sum(np.exp(gamma * fit))
            if form == "progressive":
                residual = residual - words[np.argmax(fit)]
    return result


def approximations(codes, codebook, form):
    """The approximations by soft codes, [N, D] for each length."""
    parts = [of_level @ words for of_level, words in zip(codes, codebook)]
    if form == "product":
        return [np.concatenate(parts, axis=1)]
    return list(np.cumsum(parts, axis=0))


def contrast(views, past, temperature, positives):
    """The debiased contrastive loss of views of N / 2 images; all negatives count, those of the past too."""
    views, past = ([row / np.sqrt(row @ row) for row in rows] for rows in (views, past))
    total, half = 0.0, len(views) // 2
    for i, view in enumerate(views):
        positive = np.exp(view @ views[(i + half) % len(views)] / temperature)
        others = [other for j, other in enumerate(views) if j % half != i % half] + past
        negatives = sum(np.exp(view @ other / temperature) for other in others)
        n = len(others)
        unbiased = (negatives - positives * n * positive) / (1 - positives)
        floor = n * np.exp(-1 / temperature)
        assert abs(unbiased - floor) > TIE, "a sum of negatives is near its floor: take another seed"
        total -= np.log(positive / (positive + max(unbiased, floor)))
    return total / len(views)


def mecoq(x, codebook, past, form, assignment, gamma, temperature, positives, entropy, diversity):
    """The loss of MeCoQ, with soft codes of the past, which the codebook of today decodes."""
    codes = soft_codes(x, codebook, form, assignment, gamma)
    of_past = approximations(past, codebook, form) if past is not None else None
    contrasts = []
    for length, approximation in enumerate(approximations(codes, codebook, form)):
        others = of_past[length] if past is not None else np.zeros((0, x.shape[1]))
        contrasts.append(contrast(approximation, others, temperature, positives))
    uncertainty = np.mean([-np.sum(p * np.log(p)) for of_level in codes for p in of_level])
    likeness = np.mean([cosine(a, b) for words in codebook for a in words for b in words])
    return np.mean(contrasts) + entropy * uncertainty + diversity * likeness


def choices(x, codebook, start):
    """log P_l(x), [L, K] for one feature: residuals by the nearest codewords of the features of `start`."""
    levels, width = [], codebook.shape[2]
    for level, words in enumerate(codebook):
        if width < len(x):
            residual = x[level * width : (level + 1) * width]
        else:
            residual = x - sum((codebook[j][attack_codes(start, codebook)[j]] for j in range(level)), np.zeros(len(x)))
        fit = np.array([np.exp(10 * cosine(residual, word)) for word in words])
        levels.append(np.log(fit / np.sum(fit)))
    return levels


def attack_codes(x, codebook):
    """The nearest codewords of one feature."""
    codes, residual, width = [], x, codebook.shape[2]
    for level, words in enumerate(codebook):
        if width < len(x):
            residual = x[level * width : (level + 1) * width]
        codes.append(int(np.argmin([np.sum((residual - word) ** 2) for word in words])))
        if width == len(x):
            residual = residual - words[codes[-1]]
    return codes


def attack(x, codebook, start, loss, level):
    """The losses of adversarial queries: of features x that were `start` before the attack."""
    if loss == "basic":
        return np.sum((x - start) ** 2)
    total = 0.0
    for moved, clean in zip(x, start):
        codes = attack_codes(clean, codebook)
        pairs = enumerate(zip(choices(clean, codebook, clean), choices(moved, codebook, clean)))
        for at, (before, after) in pairs:
            if level in (None, at):
                total += -after[codes[at]] if loss == "apd" else np.sum(np.exp(before) * (before - after))
    return total


def prefix_classification(x, codebook, weight, bias, start, labels, gamma, t):
    """PHPQ: the classification loss of soft approximations by the t nearest codewords, a mean over lengths."""
    codes, _, _ = quantize(start, codebook, "euclidean", gamma)
    total = 0.0
    for n in range(N):
        residual, prefix = x[n], np.zeros(D)
        for level, words in enumerate(codebook):
            fit = np.array([-gamma * np.sum((residual - word) ** 2) for word in words])
            kept = np.argsort(-fit)[:t]
            weights = np.exp(fit[kept] - np.max(fit))
            prefix = prefix + weights / np.sum(weights) @ words[kept]
            logits = weight @ prefix + bias
            total -= np.log(np.exp(logits[np.argmax(labels[n])]) / np.sum(np.exp(logits)))
            residual = residual - words[codes[level, n]]
    return total / N / L


def gradient(f, args, which):
    """Central differences of f(*args) by args[which]."""
    result = np.zeros_like(args[which])
    for place in np.ndindex(*result.shape):
        values = []
        for step in (STEP, -STEP):
            moved = [np.array(arg) for arg in args]
            moved[which][place] += step
            values.append(f(*moved))
        result[place] = (values[0] - values[1]) / (2 * STEP)
    return result


def rounded(value):
    """Ten digits: more than float32 has."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if isinstance(value, np.ndarray):
        # Flat and row-major; the tests know the shapes.
        return [rounded(v) for v in value.ravel().tolist()]
    return float(f"{value:.10g}") if isinstance(value, float) else value


x = draw(N, D)
codebook = draw(L, K, D) * np.array([1.0, 0.5, 0.25])[:, None, None]
logits = draw(N, C, scale=2.0)
embeddings = draw(C, D)
embeddings[3] = embeddings[2] + draw(D, scale=0.25)  # two similar classes
embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
one_hot = np.eye(C)[[0, 1, 2, 3, 1, 2]]
# One label, several, all but one, none.
multi_hot = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]], float)

quantized = []
for assignment in ("euclidean", "cosine"):
    for gamma in (1.0, 8.0):
        codes, soft, hard = quantize(x, codebook, assignment, gamma)
        losses = {}
        for loss in (soft_distortion, hard_distortion, joint_center):
            f = lambda x, codebook: loss(x, codebook, assignment, gamma)
            losses[loss.__name__] = {
                "value": float(f(x, codebook)),
                "gradients": [gradient(f, (x, codebook), which) for which in (0, 1)],
            }
        quantized.append(
            {"assignment": assignment, "gamma": gamma, "codes": codes, "soft": soft, "hard": hard, "losses": losses}
        )

classified = []
for multi_label, labels in ((False, one_hot), (True, multi_hot)):
    f = lambda logits: classification(logits, labels, multi_label)
    classified.append(
        {
            "multi_label": multi_label,
            "labels": labels,
            "value": float(f(logits)),
            "gradient": gradient(f, (logits,), 0),
        }
    )

margins_of = []
for margins in ("negatives", "all"):
    f = lambda x: adaptive_margin(x, multi_hot, embeddings, margins)
    margins_of.append(
        {"margins": margins, "labels": multi_hot, "value": float(f(x)), "gradient": gradient(f, (x,), 0)}
    )

queries = draw(N, D)
pairs = []
for others in (np.zeros((N, N)), np.eye(N)[[3, 4, 5, 0, 1, 2]]):
    weights = {"temperature": 0.5, "keys": 0.75, "reconstruction": 0.125}
    f = lambda queries, keys, codebook: mopq(
        queries, keys, codebook, x, others, weights["temperature"], weights["keys"], weights["reconstruction"]
    )
    pairs.append(
        {
            "others": others,
            **weights,
            "value": float(f(queries, x, codebook)),
            "gradients": [gradient(f, (queries, x, codebook), which) for which in (0, 1, 2)],
        }
    )

part_views, parts, past = draw(N, 6), draw(L, K, 2), np.exp(draw(L, 5, K))
past = (past / np.sum(past, axis=2, keepdims=True)).astype(np.float32).astype(np.float64)
contrasted = []
for form, assignment, remembers, positives in (
    ("product", "cosine", False, 0.0),
    ("product", "cosine", True, 0.1),
    ("progressive", "euclidean", False, 0.1),
    ("progressive", "euclidean", True, 0.6),
):
    args = (part_views, parts) if form == "product" else (x, codebook)
    weights = {"temperature": 0.5, "positives": positives, "entropy": 0.25, "diversity": 0.75}
    f = lambda x, codebook: mecoq(x, codebook, past if remembers else None, form, assignment, 3.0, *weights.values())
    contrasted.append(
        {
            "form": form,
            "remembers": remembers,
            **weights,
            "value": float(f(*args)),
            "gradients": [gradient(f, args, which) for which in (0, 1)],
        }
    )
rng = np.random.default_rng(20200211)
moved = x + draw(N, D, scale=0.5)
# Two parts of four dimensions, and the codebook of three levels above.
halves = {"x": draw(N, 4), "codebook": draw(2, K, 2)}
halves["moved"] = halves["x"] + draw(N, 4, scale=0.5)
attacks = []
for of in ({"x": x, "codebook": codebook, "moved": moved}, halves):
    for loss, level in (("basic", None), ("apd", None), ("apd", 1), ("aod", None), ("aod", 0)):
        f = lambda moved: attack(moved, of["codebook"], of["x"], loss, level)
        attacks.append(
            {
                **of,
                "codes": np.array([attack_codes(row, of["codebook"]) for row in of["x"]]).T,
                "loss": loss,
                "level": level,
                "value": float(f(of["moved"])),
                "gradient": gradient(f, (of["moved"],), 0),
            }
        )

rng = np.random.default_rng(20240109)
weight, bias = draw(C, D), draw(C)
partial = []
for t in (1, 2, K):
    f = lambda x, codebook, weight, bias: prefix_classification(x, codebook, weight, bias, args[0], one_hot, 0.25, t)
    args = (x, codebook, weight, bias)
    partial.append({"t": t, "value": float(f(*args)), "gradients": [gradient(f, args, which) for which in range(4)]})

golden = {
    "shape": {"n": N, "d": D, "k": K, "l": L, "c": C},
    "x": x,
    "codebook": codebook,
    "logits": logits,
    "embeddings": embeddings,
    "quantize": quantized,
    "classification": classified,
    "adaptive_margin": margins_of,
    "queries": queries,
    "mopq": pairs,
    "part_views": part_views,
    "parts": parts,
    "past": past.transpose(1, 0, 2),
    "mecoq": contrasted,
    "attack": attacks,
    "phpq": {"weight": weight, "bias": bias, "labels": one_hot, "gamma": 0.25, "cases": partial},
}
text = json.dumps(rounded(golden), separators=(",", ":"))
Path(__file__).with_name("golden.json").write_text(text.replace('],"', '],\n"').replace('},{"', '},\n{"') + "\n")
