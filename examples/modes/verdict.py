"""The verdict: what the figures of all seeds say of what was published, and the tables beside the published ones.

Pure functions of plain figures: nothing here trains or measures.

References:
    Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), figure 2, https://arxiv.org/abs/1709.03831
    Improved Techniques for Training GANs (Salimans et al., 2016), section 3.2, https://arxiv.org/abs/1606.03498
    PacGAN (Lin et al., 2018), tables 1 and 3, https://arxiv.org/abs/1712.04086
    The GAN is dead; long live the GAN! (Huang et al., 2024), table 1, https://arxiv.org/abs/2501.05441
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from examples.studies.mean import Claim, Mean, Rows, average, join_report, table, tabulate

__all__ = ["judge", "report"]


class _Order(NamedTuple):
    """A published order of two systems by a figure: the first has more of it."""

    more: str
    less: str
    figure: str

    @property
    def systems(self) -> set[str]:
        """The systems that it is about."""
        return {self.more, self.less}

    def judge(self, rows: Rows) -> Claim:
        """Judges whether the means are apart by more than both errors."""
        more, less = (average(rows, name, self.figure) for name in (self.more, self.less))
        text = f"{self.figure}: {self.more} above {self.less} by more than both errors"
        return Claim(text, f"{more} against {less}", more.exceeds(less))


class _Whole(NamedTuple):
    """A published statement that a system finds all modes in each run, or that it does not."""

    system: str
    figure: str
    most: int
    finds: bool = True

    @property
    def systems(self) -> set[str]:
        """The system that it is about."""
        return {self.system}

    def judge(self, rows: Rows) -> Claim:
        """Judges whether all modes are found in each run, or the mean is below all by more than its error."""
        mean = average(rows, self.system, self.figure)
        always = None if mean.error is None else all(row[self.figure] >= self.most for row in rows[self.system])
        if not self.finds:
            text = f"{self.system} finds fewer than {self.most} {self.figure}"
            return Claim(text, str(mean), False if always else Mean(float(self.most), 0.0).exceeds(mean))
        return Claim(f"{self.system} finds all {self.most} {self.figure} in each run", str(mean), always)


class _Failure(NamedTuple):
    """A published statement that a system fails to train."""

    system: str

    @property
    def systems(self) -> set[str]:
        """The system that it is about."""
        return {self.system}

    def judge(self, rows: Rows) -> Claim:
        """Judges whether all runs have ended up with a single class, or none has."""
        mean, failed = average(rows, self.system, "classes"), {row["classes"] <= 1 for row in rows[self.system]}
        decided = mean.error is not None and len(failed) == 1
        return Claim(f"{self.system} fails in each run", str(mean), failed.pop() if decided else None)


def _expect(better: str, worse: str, *, more: Sequence[str] = (), less: Sequence[str] = ()) -> list[_Order]:
    """Of two systems, figures of which the better one has more, and those of which it has less."""
    return [*(_Order(better, worse, one) for one in more), *(_Order(worse, better, one) for one in less)]


_TOY = {"more": ("high quality",), "less": ("steps to all", "mode KL")}
_PACKED = {"more": ("modes",), "less": ("mode KL",)}
_CLASSES = {"more": ("classes",), "less": ("class KL",)}
_CLAIMS: Mapping[str, Sequence[_Order | _Whole | _Failure]] = {
    "ring": [
        _Whole("GAN", "modes", 8, finds=False),
        _Whole("D2GAN", "modes", 8),
        *_expect("D2GAN", "GAN", **_TOY),
        *_expect("minibatch discrimination", "GAN, small batches", **_TOY),
    ],
    "pacgan": [
        order
        for data in ("grid", "ring")
        for name in ("PacGAN2", "PacGAN4", "ALI")
        for order in _expect(f"{data}, {name}", f"{data}, GAN", **_PACKED)
        if (data, name) != ("ring", "ALI")  # level with the GAN in the paper
    ],
    "stacked": [
        *_expect("PacDCGAN2", "DCGAN", **_CLASSES),
        _Whole("relativistic, R1 and R2", "classes", 1000),
        *_expect("relativistic, R1 and R2", "plain, R1 and R2", **_CLASSES),
        *_expect("relativistic, R1 and R2", "relativistic, R1", **_CLASSES),
        *_expect("plain, R1 and R2", "plain, R1", **_CLASSES),
        _Failure("relativistic, R1"),
        _Failure("plain, R1"),
    ],
}
_PUBLISHED: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "pacgan": {
        "grid, GAN": {"modes": "17.3 ± 0.8", "high quality": "0.948 ± 0.007", "mode KL": "0.70 ± 0.07"},
        "grid, ALI": {"modes": "24.1 ± 0.4", "high quality": "0.957 ± 0.006", "mode KL": "0.14 ± 0.03"},
        "grid, PacGAN2": {"modes": "23.8 ± 0.7", "high quality": "0.913 ± 0.008", "mode KL": "0.13 ± 0.04"},
        "grid, PacGAN4": {"modes": "24.8 ± 0.2", "high quality": "0.936 ± 0.006", "mode KL": "0.04 ± 0.01"},
        "ring, GAN": {"modes": "6.3 ± 0.5", "high quality": "0.982 ± 0.002", "mode KL": "0.45 ± 0.09"},
        "ring, ALI": {"modes": "6.6 ± 0.3", "high quality": "0.976 ± 0.004", "mode KL": "0.36 ± 0.04"},
        "ring, PacGAN2": {"modes": "7.9 ± 0.1", "high quality": "0.956 ± 0.020", "mode KL": "0.07 ± 0.03"},
        "ring, PacGAN4": {"modes": "7.8 ± 0.1", "high quality": "0.959 ± 0.014", "mode KL": "0.07 ± 0.02"},
    },
    "stacked": {
        "DCGAN": {"classes": "78.5 ± 17.6", "class KL": "5.21 ± 0.19"},
        "PacDCGAN2": {"classes": "484.5 ± 33.0", "class KL": "2.61 ± 0.22"},
        "relativistic, R1 and R2": {"classes": "1000", "class KL": "0.078"},
        "relativistic, R1": {"classes": "fails", "class KL": "fails"},
        "plain, R1 and R2": {"classes": "693", "class KL": "0.927"},
        "plain, R1": {"classes": "fails", "class KL": "fails"},
    },
}


def judge(part: str, rows: Rows) -> list[Claim]:
    """What the figures say of each published claim about systems that have some.

    Args:
        part: The study's part.
        rows: Figures of each system by seed.
    """
    return [one.judge(rows) for one in _CLAIMS[part] if one.systems <= rows.keys()]


def report(part: str, rows: Rows) -> str:
    """The table, beside the published figures where there are any, and the verdict, Markdown."""
    if part not in _PUBLISHED:
        columns = ("found all", "steps to all", "modes", "high quality", "mode KL")
        return join_report([tabulate(rows, columns)], judge(part, rows))
    published = _PUBLISHED[part]
    figures = list(next(iter(published.values())))
    head = ["", *(title for figure in figures for title in (figure, "published"))]
    cells = [
        [name, *(cell for figure in figures for cell in (str(average(rows, name, figure)), published[name][figure]))]
        for name in rows
    ]
    return join_report([table(head, cells)], judge(part, rows))
