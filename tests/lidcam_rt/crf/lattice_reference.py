"""The dense CRF in numpy and scipy: simplices in float32 as pydensecrf finds them, everything else in float64."""

import numpy as np
from scipy import sparse


def locate(features):
    """Vertex keys [D + 1, N, D] and barycentric weights [D + 1, N] (Adams et al. 2010, section 3.2)."""
    f = np.asarray(features, np.float32)
    n, d = f.shape
    f = np.concatenate([f, np.zeros((-n % 4, d), np.float32)])  # pydensecrf pads to groups of four
    deviation = np.float32(np.sqrt(2.0 / 3.0) * (d + 1))
    e = np.zeros((d + 1, len(f)), np.float32)
    total = np.zeros(len(f), np.float32)
    for j in range(d, 0, -1):
        c = f[:, j - 1] * np.float32(1.0 / np.sqrt((j + 1.0) * j) * deviation)
        e[j] = total - np.float32(j) * c
        total = total + c
    e[0] = total
    rounded = np.rint(e * np.float32(1.0 / (d + 1)))
    base = rounded * np.float32(d + 1)
    rank = np.tile(rounded.sum(0), (d + 1, 1))
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = e[i] - base[i] < e[j] - base[j]
            rank[i] += less
            rank[j] += ~less
    wrap = np.where(rank < 0, d + 1, 0) - np.where(rank > d, d + 1, 0)
    rank, base = (rank + wrap).astype(int), base + wrap.astype(np.float32)
    v = (e - base) * np.float32(1.0 / (d + 1))
    weight = np.zeros((d + 2, len(f)), np.float32)
    pixel = np.arange(len(f))
    for i in range(d + 1):
        weight[d - rank[i], pixel] += v[i]
        weight[d - rank[i] + 1, pixel] -= v[i]
    weight[0] += 1 + weight[d + 1]
    keys = [
        np.stack([base[i].astype(int) + np.where(rank[i] <= d - k, k, k - d - 1) for i in range(d)], 1)
        for k in range(d + 1)
    ]
    return np.stack(keys), weight[: d + 1, :n]


class Kernel:
    """A pairwise kernel as a product of sparse matrices."""

    def __init__(self, features, normalization="symmetric"):
        keys, weight = locate(features)
        corners, count = weight.shape
        d = corners - 1
        vertices, index = np.unique(keys.reshape(-1, d), axis=0, return_inverse=True)
        index = index.reshape(corners, -1)[:, :count]
        self.vertices = m = len(vertices)
        self.splat = sparse.csr_matrix(
            (weight.astype(np.float64).ravel(), (index.ravel(), np.tile(np.arange(count), corners))), (m, count)
        )
        row_of = {tuple(v): i for i, v in enumerate(vertices)}
        self.blurs = []
        for j in range(d + 1):
            pairs = []
            for sign in (-1, 1):
                moved = vertices + sign
                if j < d:
                    moved[:, j] = vertices[:, j] - sign * d
                pairs += [(i, row_of[tuple(v)]) for i, v in enumerate(moved) if tuple(v) in row_of]
            rows, columns = np.array(pairs, int).reshape(-1, 2).T
            self.blurs.append(
                sparse.identity(m, format="csr") + sparse.csr_matrix((np.full(len(rows), 0.5), (rows, columns)), (m, m))
            )
        self.alpha = 1 / (1 + 2.0**-d)
        self.before = self.after = np.ones((count, 1))
        k1 = self(np.ones((1, count))).T + 1e-20
        if normalization == "symmetric":
            self.before = self.after = 1 / np.sqrt(k1)
        elif normalization == "before":
            self.before = 1 / k1
        elif normalization == "after":
            self.after = 1 / k1

    def __call__(self, values):
        v = self.splat @ (self.before * values.T)
        for blur in self.blurs:
            v = blur @ v
        return (self.after * (self.splat.T @ v) * self.alpha).T


def softmax(energy):
    q = np.exp(-(energy - energy.min(0)))
    return q / q.sum(0)


def mean_field(unary, terms, iterations):
    """unary [L, N]; terms (Kernel, matrix [L, L]) add matrix @ K q to the energies."""
    q = softmax(unary.astype(np.float64))
    for _ in range(iterations):
        q = softmax(unary + sum(matrix @ kernel(q) for kernel, matrix in terms))
    return q


def scene(height, width, labels, seed=0):
    """Image uint8 [H, W, 3] of blocks, energies float32 [labels, H, W]."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    image = np.clip(blocks + rng.normal(0, 6, blocks.shape), 0, 255).astype(np.uint8)
    return image, (rng.random((labels, height, width)) * 4).astype(np.float32)


def image_features(image, sxy, srgb):
    """Features of a bilateral term, float32 [H * W, 5]; of a Gaussian one, [H * W, 2], for srgb None."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    columns = [x / np.float32(sxy[0]), y / np.float32(sxy[1])]
    if srgb is not None:
        columns += list(np.moveaxis(image.astype(np.float32) / np.array(srgb, np.float32), 2, 0))
    return np.stack(columns, -1).reshape(-1, len(columns)).astype(np.float32)


def in_float64(image, unary, options):
    """Marginals of `CrfOptions`, [labels, H, W]."""
    labels = unary.shape[0]
    terms = []
    for term in options.pairwise():
        d, compat = term.deviations(), np.asarray(term.compat, float)
        matrix = -compat * np.eye(labels) if compat.ndim == 0 else np.diag(compat) if compat.ndim == 1 else compat
        kernel = Kernel(image_features(image, d[:2], d[2:] or None), term.normalization)
        terms.append((kernel, (matrix + matrix.T) / 2))
    return mean_field(unary.reshape(labels, -1), terms, options.iterations).reshape(unary.shape)
