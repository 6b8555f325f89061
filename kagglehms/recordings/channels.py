"""Find electrodes by the labels of channels, and express each of them as a sum of channels.

A label says which electrode is measured against which reference: `EEG Fp1-REF`, `Fp1-A2`, `FP1` against a reference
without a name, `Fp1-F7` against a neighbour. So a recording is a graph whose nodes are electrodes and references, and
whose edges are channels. The potentials of connected nodes are known up to a constant: they are sums of the channels
along a path. Models see differences of neighbouring electrodes, in which the constant cancels. Referential and bipolar
recordings, an ear as the reference of each side, and an electrode as the reference of the rest need no special cases.

Nodes that are not connected have no known difference; such a difference is missing, not zero.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kagglehms.data.competition import CHANNELS, DIFFERENCES, MIDLINE_DIFFERENCES
from kagglehms.errors import nearest
from kagglehms.recordings.resampling import LEAST_RATE_HZ
from kagglehms.recordings.stored import NO_SCALE, Recording

Pair = tuple[str, str]

ELECTRODES = CHANNELS[:19]
EKG = CHANNELS[19]
PAIRS: tuple[Pair, ...] = (*DIFFERENCES, *MIDLINE_DIFFERENCES)
"""All differences that inputs of models are made of: sixteen of the chains, two of the midline."""

UNNAMED = "common reference"
"""The reference of channels whose labels name an electrode and no reference."""

_NEWER = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""Names of the 10–10 system → those of the 10–20 system, which the competition has."""
_SITES = r"(?:FP|AF|FT|FC|TP|CP|PO|NZ|IZ|F|T|C|P|O)"
_ELECTRODE = re.compile(rf"({_SITES})(Z|\d{{1,2}})|[AM][12]", re.IGNORECASE)
_GLUED = re.compile(
    rf"(?P<plus>{_SITES}(?:Z|\d{{1,2}}))(?P<minus>{_SITES}(?:Z|\d{{1,2}})|[AM][12])", re.IGNORECASE
)
_EKG = re.compile(r"(?:EKG|ECG)[LR]?\d?", re.IGNORECASE)
_PREFIXES = frozenset({"EEG", "POL", "E", "CHAN"})
_NOT_A_REFERENCE = frozenset({"UV", "EEG"})
_SEPARATORS = re.compile(r"[\s\-‐‑–—−:/_.,()\[\]]+")
_LISTED = 6


@dataclass(frozen=True)
class Lead:
    """A channel whose label names an electrode.

    Attributes:
        channel: position of the channel in the recording.
        label: spelling of the label in the recording.
        plus: electrode that is measured.
        minus: electrode or reference that it is measured against.
    """

    channel: int
    label: str
    plus: str
    minus: str


@dataclass(frozen=True)
class Montage:
    """Electrodes as sums of channels.

    Attributes:
        paths: channels that each electrode is the sum of, with their signs; an empty sum for an electrode that is the
            reference itself.
        leads: channels with the name of an electrode, by their position.
        missing: electrodes that the recording lacks, or whose differences it lacks.
        pairs: differences that the models use and that the recording has.
        lost: differences that the models use and that the recording lacks.
        loops: channels whose difference other channels give as well, each with the sum of the others, which must agree.
        ekg: channel of the electrocardiogram; None if there is none.
        unused: labels of channels that are part of no sum.
    """

    paths: Mapping[str, tuple[tuple[int, int], ...]]
    leads: Mapping[int, Lead]
    missing: tuple[str, ...]
    pairs: tuple[Pair, ...]
    lost: tuple[Pair, ...]
    loops: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    ekg: Lead | None
    unused: tuple[str, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels to read, in stored order."""
        needed = {channel for path in self.paths.values() for channel, _ in path}
        needed |= {self.ekg.channel} if self.ekg is not None else set()
        return tuple(sorted(needed))

    @property
    def confirming(self) -> tuple[int, ...]:
        """The channels of `loops`, in stored order."""
        return tuple(sorted({c for lead, way in self.loops for c in (lead, *(c for c, _ in way))}))

    @property
    def is_bipolar(self) -> bool:
        """Whether some electrode is the sum of several channels."""
        return any(len(path) > 1 for path in self.paths.values())

    @property
    def lines(self) -> tuple[str, ...]:
        """The mapping for a person: one line per electrode, and the channels that are not used."""
        lines = [f"{name:<4}= {self._sum(name)}" for name in ELECTRODES]
        lines.append(f"{EKG:<4}= {self.ekg.label if self.ekg is not None else 'missing; no model uses it'}")
        if self.is_bipolar:
            lines.append("(bipolar: potentials are sums of channels, up to a constant that cancels out)")
        if self.unused:
            lines.append(f"not used: {', '.join(self.unused)}")
        return tuple(lines)

    def _sum(self, name: str) -> str:
        if name not in self.paths:
            return "missing"
        path = self.paths[name]
        if not path:
            return "0, the reference of the others"
        words = [f"{'+' if sign > 0 else '−'} ({self.leads[channel].label})" for channel, sign in path]
        return self.leads[path[0][0]].label if len(path) == 1 and path[0][1] > 0 else " ".join(words)


def electrode(name: str) -> str | None:
    """Return the usual name of an electrode, such as T3 for `t7`; None if the name is not of an electrode."""
    if not _ELECTRODE.fullmatch(name):
        return None
    upper = name.upper()
    name = upper.replace("FP", "Fp") if upper.startswith("FP") else upper
    if name.endswith("Z"):
        name = name[:-1] + "z"
    return _NEWER.get(name, name)


def parse_label(label: str) -> Pair | None:
    """Read the electrode and the reference from a channel's label.

    Args:
        label: text such as `EEG Fp1-REF`, `FP1`, `Fp1-A2`, `EEG T7-P7`, `Fp1-F7-0`, `POL F3` or `FP1F7`.

    Returns:
        The electrode and its reference: another electrode, a name in capitals, or `UNNAMED`. None for a channel that
        measures something else.
    """
    words = [word for word in _SEPARATORS.split(label.strip()) if word]
    if words and (glued := re.fullmatch(r"EEG(?P<rest>.+)", words[0], re.IGNORECASE)):
        words = [glued["rest"], *words[1:]]
    while len(words) > 1 and words[0].upper() in _PREFIXES:
        words = words[1:]
    if not words:
        return None
    plus = electrode(words[0])
    if plus is None:
        both = _GLUED.fullmatch(words[0])
        found = (electrode(both["plus"]), electrode(both["minus"])) if both else (None, None)
        return (found[0], found[1]) if found[0] and found[1] else None
    rest = [word for word in words[1:] if word.upper() not in _NOT_A_REFERENCE and not _is_count(word)]
    if not rest:
        return plus, UNNAMED
    return plus, electrode(rest[0]) or rest[0].upper()


def _check_renames(recording: Recording, rename: Mapping[str, str], labels: Sequence[str]) -> None:
    """Refuse a mapping with names that are no channels of the recording or no electrodes, all of them at once."""
    absent = [_with_near(label, labels) for label in rename if label not in labels]
    odd = [
        _with_near(name, (*CHANNELS, *_NEWER))
        for name in rename.values()
        if parse_label(name) is None and not any(map(_EKG.fullmatch, _SEPARATORS.split(name)))
    ]
    problems = [f"has no channel {', '.join(absent)} to rename"] if absent else []
    problems += [f"no electrode is named {', '.join(odd)}"] if odd else []
    if problems:
        raise recording.refusal("; ".join(problems), f"its channels: {_some(labels, 40)}")


def _with_near(name: str, known: Iterable[str]) -> str:
    """A name in quotes, and the one that was probably meant, in whatever case it was typed."""
    by_folded = {other.casefold(): other for other in known}
    near = nearest(name.casefold(), by_folded)
    return f"{name!r}" + (f" (did you mean {by_folded[near]!r}?)" if near else "")


def _is_count(word: str) -> bool:
    """Whether a word only distinguishes channels of the same name, as `-0` and `-1` of MNE do."""
    return word.isdigit()


def map_channels(
    recording: Recording,
    pairs: Collection[Pair] = PAIRS,
    allow_missing: bool = False,
    rename: Mapping[str, str] | None = None,
) -> Montage:
    """Find the electrodes among a recording's channels.

    Args:
        recording: recording whose channels are mapped.
        pairs: differences that the models use.
        allow_missing: whether some of these differences may be missing.
        rename: replacements for labels that are no electrode names, such as `{"E22": "Fp1"}`.

    Returns:
        The sum of channels that each electrode is.

    Raises:
        DataError: differences are missing in a file, no channel was recognised, `rename` names a channel that does not
            exist, or an electrode is not measured in a unit of voltage.
        UsageError: the same is wrong with an object in memory.
    """
    rename = dict(rename or {})
    labels = [channel.label for channel in recording.channels]
    _check_renames(recording, rename, labels)
    leads, ekg = _leads(recording, rename)
    voltless = _voltless(recording, rename)
    if not leads and voltless:
        raise recording.refusal(*_why_voltless(recording, voltless[0]))
    if not leads:
        reason = f"no channel has the name of an electrode; its channels: {_some(labels, 40)}"
        raise recording.refusal(
            reason, "say which they are: --rename LABEL=Fp1 …, or rename={'LABEL': 'Fp1'} in Python"
        )
    paths, component, loops = _potentials(leads)
    looked_at = {name for pair in pairs for name in pair} - set(paths)
    lacked = [lead for lead in voltless if lead.plus in looked_at]
    if lacked and not allow_missing:
        raise recording.refusal(*_why_voltless(recording, lacked[0]))
    kept = _apart(paths, component, pairs)
    usable = {name: paths[name] for name in ELECTRODES if name in kept}
    there = tuple(pair for pair in pairs if set(pair) <= kept)
    lost = tuple(pair for pair in pairs if not set(pair) <= kept)
    missing = tuple(name for name in ELECTRODES if name not in kept)
    if lost and not (allow_missing and there):
        raise recording.refusal(*_why_missing(missing, lost, len(pairs), bool(there), labels))
    used = {channel for path in usable.values() for channel, _ in path}
    relevant = [(lead.channel, way) for lead, way in loops if any(c in used for c, _ in way)]
    unused = [
        label
        for i, label in enumerate(labels)
        if i not in used
        and (ekg is None or i != ekg.channel)
        and i not in {channel for channel, _ in relevant}
    ]
    by_channel = {lead.channel: lead for lead in leads}
    return Montage(usable, by_channel, missing, there, lost, tuple(relevant), ekg, tuple(unused))


def _leads(recording: Recording, rename: Mapping[str, str]) -> tuple[list[Lead], Lead | None]:
    leads, ekg = [], None
    for i, channel in enumerate(recording.channels):
        if channel.to_uv is None:
            continue
        name = rename.get(channel.label, channel.label)
        words = [word for word in _SEPARATORS.split(name.strip()) if word]
        parsed = parse_label(name)
        if parsed is not None and parsed[0] != parsed[1]:
            leads.append(Lead(i, channel.label, *parsed))
        elif (
            ekg is None
            and parsed is None
            and recording.rate_hz(i) > LEAST_RATE_HZ  # no model looks at it: no reason to refuse the file
            and any(_EKG.fullmatch(word) for word in words)
        ):
            ekg = Lead(i, channel.label, EKG, UNNAMED)
    return leads, ekg


def _voltless(recording: Recording, rename: Mapping[str, str]) -> list[Lead]:
    """Channels with an electrode's name that are in no unit of voltage."""
    found = []
    for i, channel in enumerate(recording.channels):
        parsed = parse_label(rename.get(channel.label, channel.label))
        if channel.to_uv is None and parsed is not None and parsed[0] in ELECTRODES:
            found.append(Lead(i, channel.label, *parsed))
    return found


def _potentials(
    leads: Sequence[Lead],
) -> tuple[
    dict[str, tuple[tuple[int, int], ...]], dict[str, str], list[tuple[Lead, tuple[tuple[int, int], ...]]]
]:
    """Find potentials along the shortest paths from the node with the most channels.

    Returns:
        The channels of each node with their signs; the root that each node is connected to; and each channel that is
        part of no path, with the sum of others that must equal it.
    """
    ends: dict[str, list[Lead]] = defaultdict(list)
    for lead in leads:
        ends[lead.plus].append(lead)
        ends[lead.minus].append(lead)
    degree = Counter({node: len(edges) for node, edges in ends.items()})
    paths: dict[str, tuple[tuple[int, int], ...]] = {}
    component: dict[str, str] = {}
    used = set()
    for root, _ in degree.most_common():
        if root in paths:
            continue
        paths[root], component[root] = (), root
        queue = deque([root])
        while queue:
            node = queue.popleft()
            for lead in ends[node]:
                other, sign = (lead.plus, 1) if lead.minus == node else (lead.minus, -1)
                if other not in paths:
                    paths[other], component[other] = (*paths[node], (lead.channel, sign)), root
                    used.add(lead.channel)
                    queue.append(other)
    loops = []
    for lead in leads:
        if lead.channel not in used:
            way = Counter(dict(paths[lead.plus]))
            way.subtract(dict(paths[lead.minus]))
            loops.append((lead, tuple((channel, sign) for channel, sign in way.items() if sign)))
    return paths, component, loops


def _apart(paths: Mapping[str, object], component: Mapping[str, str], pairs: Collection[Pair]) -> set[str]:
    """Choose the electrodes to keep so that all differences between them are known and as few as possible are lost.

    Two electrodes that are not connected have no known difference, which an array of electrodes can express only by
    leaving one of them out.
    """
    kept = {name for name in ELECTRODES if name in paths}

    def lives(pair: Pair) -> bool:
        return set(pair) <= kept and component[pair[0]] == component[pair[1]]

    while torn := [p for p in pairs if set(p) <= kept and not lives(p)]:
        costs = {name: sum(lives(p) for p in pairs if name in p) for pair in torn for name in pair}
        kept.discard(min(costs, key=lambda name: (costs[name], ELECTRODES.index(name))))
    lonely = {
        name
        for name in kept
        if any(name in p for p in pairs) and not any(lives(p) for p in pairs if name in p)
    }
    return kept - lonely


def _why_voltless(recording: Recording, lead: Lead) -> tuple[str, str]:
    unit = recording.channels[lead.channel].unit
    what = "has no scale, or none in volts" if unit == NO_SCALE else f"is in {unit!r}, which is no voltage"
    return f"{lead.plus} {what}", "export it in µV, or allow missing electrodes (--allow-missing)"


def _why_missing(
    missing: Sequence[str], lost: Sequence[Pair], n_pairs: int, some_left: bool, labels: Sequence[str]
) -> tuple[str, str]:
    wanted = [name for name in missing if any(name in pair for pair in lost)]
    reason = (
        f"lacks {', '.join(wanted)}: {len(lost)} of the {n_pairs} differences that the models use need them"
    )
    if not some_left:
        return reason, f"no difference is left; its channels: {_some(labels, 40)}"
    return reason, "allow missing electrodes (--allow-missing) to go on without these differences"


def _some(names: Sequence[str], most: int = _LISTED) -> str:
    listed = ", ".join(names[:most]) or "none"
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
