"""What fitted blends are worth on real out-of-fold predictions, next to the plain mean and hand-tuned weights.

    python benchmarks/blending.py oof_18_models.parquet

The file holds columns `model:class` with probabilities, `<class>_vote` with true vote fractions, `n_votes` and
`patient_id`. Every fitted figure is nested: weights, shrinkage and space come from other patients than those that
are scored. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from _populations import report as populations
from numpy.typing import NDArray

from kagglehms.data.competition import CLASSES, VOTE_COLUMNS
from kagglehms.runs.blend_data import BlendData
from kagglehms.runs.blend_fitting import SHRINKAGES, NestedScore, clustered_mean, nested_score
from kagglehms.runs.blends import Blend, Fitting
from kagglehms.training.metric import kl_terms

HAND_TUNED = "spectrogram=0.65,raw_eeg=0.2,multitaper=0.15"
"""What the team whose predictions these are chose for the means of its three families of models."""

DEFAULT = "probability: weights, temperature"


@dataclass(frozen=True)
class Case:
    names: tuple[str, ...]
    predictions_MNK: NDArray[np.float64]
    targets_NK: NDArray[np.float64]
    patients_N: NDArray[np.int64]
    hand_tuned_M: NDArray[np.float64]
    families: dict[str, NDArray[np.bool_]]


def load(path: Path, min_votes: int, families: str) -> Case:
    table = pl.read_parquet(path).filter(pl.col("n_votes") >= min_votes)
    names = tuple(c.split(":")[0] for c in table.columns if c.endswith(f":{CLASSES[0]}"))
    stack = np.stack([table.select(f"{n}:{c}" for c in CLASSES).to_numpy() for n in names]).astype(np.float64)
    targets = table.select(VOTE_COLUMNS).to_numpy().astype(np.float64)
    weights, members = np.zeros(len(names)), {}
    for part in families.split(","):
        prefix, weight = part.split("=")
        family = members[prefix] = np.array([name.startswith(prefix) for name in names])
        weights[family] = float(weight) / family.sum()
    return Case(names, stack, targets, table["patient_id"].to_numpy(), weights, members)


def fixed_terms(case: Case, weights: NDArray[np.float64], space: str = "probability") -> NDArray[np.float64]:
    blend = Blend("fixed", case.names, tuple(weights.tolist()), space)  # type: ignore[arg-type]
    return kl_terms(case.targets_NK, blend.apply(dict(zip(case.names, case.predictions_MNK, strict=True))))


def variants(case: Case) -> dict[str, tuple[tuple[str, ...], NDArray[np.float64], Fitting]]:
    """What is compared: members, their predictions and how they are blended."""
    all_of_them = case.names, case.predictions_MNK
    parts = {
        "weights": (False, False),
        "weights, biases": (False, True),
        "weights, temperature": (True, False),
        "weights, temperature, biases": (True, True),
    }
    found = {
        f"{space}: {what}": (*all_of_them, Fitting(space, *how))
        for space in ("probability", "logit")
        for what, how in parts.items()
    }
    found["auto: weights, temperature"] = (*all_of_them, Fitting("auto"))
    mean = case.predictions_MNK.mean(axis=0, keepdims=True)
    found["plain mean, temperature"] = (("mean",), mean, Fitting())
    families = tuple(case.families)
    means = np.stack([case.predictions_MNK[case.families[name]].mean(axis=0) for name in families])
    found["family means: weights, temperature"] = (families, means, Fitting())
    for shrinkage in SHRINKAGES:
        found[f"{DEFAULT}, λ = {shrinkage:g}"] = (*all_of_them, Fitting(shrinkage=shrinkage))
    return found


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("kagglehms", "numpy", "scipy", "scikit-learn")}
    return found | {"python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("oof", type=Path)
    parser.add_argument("--min-votes", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5, help="outer cross-validations, five folds each")
    parser.add_argument("--hand-tuned", default=HAND_TUNED, help="prefix=weight of each family")
    parser.add_argument("--populations", action="store_true", help="what prior correction is worth, instead")
    args = parser.parse_args()
    if args.populations:
        found = populations(args.oof, args.seeds)
        print(json.dumps({"benchmark": "populations", "versions": versions(), **found}))
        return
    case = load(args.oof, args.min_votes, args.hand_tuned)
    equal = np.full(len(case.names), 1 / len(case.names))
    fixed = {
        "plain mean of probabilities": fixed_terms(case, equal),
        "plain mean of logits": fixed_terms(case, equal, "logit"),
        "hand-tuned family weights": fixed_terms(case, case.hand_tuned_M),
    }
    plain, hand = fixed["plain mean of probabilities"], fixed["hand-tuned family weights"]
    codes, rows = np.unique(case.patients_N, return_inverse=True)[1], np.ones(len(plain))
    print(
        f"{len(case.names)} models, {len(plain)} records with ≥ {args.min_votes} votes, {codes.max() + 1} patients"
    )
    print(f"{'':55} {'nested':>7} {'sd':>7} {'in-s.':>7} {'− plain mean':>17} {'− hand-tuned':>17}   λ")
    results = {}

    def line(name: str, terms: NDArray[np.float64], nested: NestedScore | None = None) -> None:
        (to_plain, plain_error), (to_hand, hand_error) = (
            clustered_mean(terms - other, rows, codes) for other in (plain, hand)
        )
        sd = in_sample = " " * 7
        shrinkages = ""
        results[name] = {"score": float(terms.mean())}
        if nested:
            sd, in_sample = f"{np.std(nested.scores):7.5f}", f"{nested.in_sample:7.5f}"
            used = [fit.fitting.shrinkage or 0 for fit in nested.fits if fit.fitting]
            shrinkages = f"{min(used):g} … {max(used):g}"
            results[name] |= {"in_sample": nested.in_sample, "sd": float(np.std(nested.scores))}
        print(
            f"{name:55} {terms.mean():7.5f} {sd} {in_sample} {to_plain:+8.5f} ±{plain_error:7.5f} "
            f"{to_hand:+8.5f} ±{hand_error:7.5f}   {shrinkages}",
            flush=True,
        )

    for name, terms in fixed.items():
        line(name, terms)
    start = time.perf_counter()
    for name, (members, stack, fitting) in variants(case).items():
        data = BlendData.of(stack, case.targets_NK, members, case.patients_N)
        nested = nested_score(data, fitting, seeds=range(args.seeds))
        line(name, nested.terms_N, nested)
        if name == DEFAULT:
            usual = nested
    temperatures = [fit.temperature for fit in usual.fits]
    print(
        f"\ndefault: temperature {usual.blend.temperature:.3f} ({min(temperatures):.3f} … {max(temperatures):.3f})"
    )
    print("weights of the fit on all rows, their standard deviation over the nested fits:")
    for name, weight, std in zip(case.names, usual.blend.weights, usual.weights_std, strict=True):
        print(f"  {name:50} {weight:.3f} ± {std:.3f}")
    report = {
        "benchmark": "blending",
        "models": len(case.names),
        "records": len(plain),
        "patients": int(codes.max()) + 1,
        "min_votes": args.min_votes,
        "seeds": args.seeds,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
        "results": results,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
