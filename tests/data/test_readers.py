"""Reading one recording: exact values from good files, one named error from every kind of bad one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import eeg_frame, spectrogram_frame
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kagglehms.data.competition import CHANNELS
from kagglehms.data.readers import (
    MAX_ROWS,
    MAX_TIMES,
    eeg_is_blank,
    encode_eeg,
    encode_spectrogram,
    misnamed,
    read_eeg,
    read_spectrogram,
)
from kagglehms.environment import child_environment
from kagglehms.errors import DataError


def test_an_eeg_keeps_its_values_in_half_precision(tmp_path: Path) -> None:
    frame = eeg_frame()
    frame.write_parquet(tmp_path / "1.parquet")
    read = read_eeg(tmp_path / "1.parquet")
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, frame.to_numpy().astype(np.float16))


def test_missing_samples_become_nan(tmp_path: Path) -> None:
    frame = eeg_frame().with_columns(pl.Series("F3", [None, float("nan"), *[1.0] * 9_998], dtype=pl.Float32))
    frame.write_parquet(tmp_path / "1.parquet")
    read = read_eeg(tmp_path / "1.parquet")
    assert np.isnan(read[:2, 1]).all()
    assert np.isfinite(read[2:]).all()


@pytest.mark.parametrize("time_type", [pl.Int64, pl.Int16, pl.Float64])
def test_a_spectrogram_becomes_the_clipped_logarithm(tmp_path: Path, time_type: type[pl.DataType]) -> None:
    frame = spectrogram_frame(time_type=time_type)
    frame.write_parquet(tmp_path / "1.parquet")
    read = read_spectrogram(tmp_path / "1.parquet").astype(np.float64)
    power = frame.drop("time").to_numpy().astype(np.float64)
    expected = np.clip(np.log(power), -4, 8)
    np.testing.assert_allclose(read, expected, rtol=2**-11, atol=1e-6)


def _drop_column(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(frame.columns[3])


def _rename_column(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rename({frame.columns[3]: "Fpz"})


def _swap_columns(frame: pl.DataFrame) -> pl.DataFrame:
    names = frame.columns
    names[4], names[5] = names[5], names[4]
    return frame.select(names)


def _text_column(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(frame.to_series(3).cast(pl.String))


def _nothing_but_nan(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(float("nan"), pl.Float32).alias(n) for n in frame.columns if n != "time")


SAME = {
    "reversed": lambda frame: frame.select(reversed(frame.columns)),
    "sorted": lambda frame: frame.select(sorted(frame.columns)),
    "swapped": _swap_columns,
    "with an index": lambda frame: frame.with_row_index("__index_level_0__"),
    "with an index behind": lambda frame: frame.with_columns(pl.Series("index", range(len(frame)))),
    "with a column of text": lambda frame: frame.with_columns(pl.lit("of whom").alias("note")),
    "of 64 bits": lambda frame: frame.with_columns(pl.all().exclude("time").cast(pl.Float64)),
}


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("kind", ["eeg", "spectrogram"])
def test_columns_go_by_their_names(tmp_path: Path, kind: str, change: str) -> None:
    frame, read = (eeg_frame(), read_eeg) if kind == "eeg" else (spectrogram_frame(), read_spectrogram)
    frame.write_parquet(tmp_path / "plain.parquet")
    SAME[change](frame).write_parquet(tmp_path / "changed.parquet")
    np.testing.assert_array_equal(read(tmp_path / "changed.parquet"), read(tmp_path / "plain.parquet"))


def test_a_channel_that_was_never_recorded_may_be_null_or_nan(tmp_path: Path) -> None:
    """A writer that finds nothing but nulls in a column gives it whatever type it likes."""
    frame, path = eeg_frame(), tmp_path / "1.parquet"
    frame.with_columns(pl.lit(float("nan"), pl.Float32).alias("EKG")).write_parquet(path)
    expected = read_eeg(path)
    assert np.isnan(expected[:, 19]).all()
    for dtype in (pl.Float32, pl.Null, pl.Int32, pl.String, pl.Boolean):
        frame.with_columns(pl.Series("EKG", [None] * len(frame), dtype)).write_parquet(path)
        np.testing.assert_array_equal(read_eeg(path), expected)


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path, whole = tmp_path / "1.parquet", eeg_frame().select(pl.all().round())
    whole.write_parquet(path)
    expected = read_eeg(path)
    whole.with_columns(pl.col("F3", "EKG").cast(pl.Int16), pl.col("O1").cast(pl.Int64)).write_parquet(path)
    np.testing.assert_array_equal(read_eeg(path), expected)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Polars cannot write such a file, so its names are made alike in the bytes of one that it can."""
    path = tmp_path / "1.parquet"
    eeg_frame().with_columns(pl.lit(1.0, pl.Float32).alias("F9")).write_parquet(path)
    if not isinstance(pl.read_parquet_schema(path), pl.Schema):
        pytest.skip("this release of polars tells names as keys of a dictionary, each once")
    path.write_bytes(path.read_bytes().replace(b"F9", b"F3"))
    with pytest.raises(DataError, match="wrong columns: .*F3"):
        read_eeg(path)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (["b", "x", "a"], None),
        (["a", "x"], "lacks b and has unknown x"),
        (["a"], "lacks b"),
        (["a", "b", "a"], "has more than one a"),
        (["a", "x", "b", "x"], None),
    ],
)
def test_names_that_cannot_be_told(found: list[str], reason: str | None) -> None:
    assert misnamed(found, ["a", "b"]) == reason


@pytest.mark.parametrize(
    ("there", "blank"),
    [
        ((), True),
        (("EKG", "Fz", "Cz", "Pz"), True),
        (("Fp1", "T3", "C3", "O2"), True),
        (("Fp1", "F7"), False),
        (("P4", "O2", "EKG"), False),
        (CHANNELS, False),
    ],
)
def test_an_eeg_is_blank_where_no_pair_of_neighbours_was_recorded(
    there: tuple[str, ...], blank: bool
) -> None:
    eeg = np.full((100, 20), np.nan)
    eeg[40:60, [CHANNELS.index(name) for name in there]] = 1.0
    assert eeg_is_blank(eeg) is blank
    eeg[:, CHANNELS.index("F7")] = np.where(np.arange(100) < 40, 1.0, np.nan)  # at another time than Fp1
    assert eeg_is_blank(eeg) is (blank or there == ("Fp1", "F7"))


FAULTS = {
    "lacks": _drop_column,
    "unknown Fpz": _rename_column,
    "wrong column types": _text_column,
    "only NaN": _nothing_but_nan,
    "is cut short": lambda frame: frame.head(200),
}


@pytest.mark.parametrize("reason", FAULTS)
@pytest.mark.parametrize("kind", ["eeg", "spectrogram"])
def test_a_wrong_table_is_refused_with_its_reason(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "77.parquet"
    FAULTS[reason](eeg_frame() if kind == "eeg" else spectrogram_frame()).write_parquet(path)
    with pytest.raises(DataError, match=reason) as caught:
        read_eeg(path) if kind == "eeg" else read_spectrogram(path, min_rows=300)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    spectrogram_frame().reverse().write_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match="does not run 1, 3, 5"):
        read_spectrogram(tmp_path / "1.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, 5_000, -1])
@pytest.mark.parametrize("kind", ["eeg", "spectrogram"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, keep: int) -> None:
    path = tmp_path / "1.parquet"
    (eeg_frame() if kind == "eeg" else spectrogram_frame()).write_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cannot be read.*download it again") as caught:
        read_eeg(path) if kind == "eeg" else read_spectrogram(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_eeg(tmp_path / "none.parquet")


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("a/b", "broken", "mend it")))
    assert (error.path, error.reason, error.hint) == (Path("a/b"), "broken", "mend it")


@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_encoding_never_yields_infinity_and_keeps_nan(values: np.ndarray) -> None:
    eeg = encode_eeg(values)
    unusable = ~np.isfinite(values)
    assert np.array_equal(np.isnan(eeg), unusable)
    log_power = encode_spectrogram(np.abs(values))
    assert np.array_equal(np.isnan(log_power), unusable)
    assert ((log_power >= -4) & (log_power <= 8) | unusable).all()


def test_real_files_read(hms_sample: Path) -> None:
    for split in ("train", "test"):
        for path in (hms_sample / f"{split}_eegs").glob("*.parquet"):
            half, exact = (
                read_eeg(path).astype(np.float64),
                pl.read_parquet(path).to_numpy().astype(np.float64),
            )
            assert np.nanmax(np.abs(half - exact) / np.maximum(1, np.abs(exact))) <= 2**-11
        for path in (hms_sample / f"{split}_spectrograms").glob("*.parquet"):
            assert read_spectrogram(path, min_rows=300).shape[1] == 400


def repeated(frame: pl.DataFrame, n_rows: int) -> pl.DataFrame:
    """A table of as many rows of one value, which a file holds in next to no bytes."""
    zeros = pl.Series("", np.zeros(n_rows, np.float32))
    return pl.DataFrame([zeros.alias(name) for name in frame.columns])


def test_rows_beyond_the_longest_recording_are_refused_and_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "1.parquet"
    n_rows = 6 * MAX_TIMES
    repeated(eeg_frame(1), n_rows).write_parquet(path)
    unpacked = n_rows * len(CHANNELS) * 4
    assert path.stat().st_size < unpacked / 500
    written = peak_bytes()
    with pytest.raises(DataError, match="more than 1,440,000 rows"):
        read_eeg(path)
    assert peak_bytes() - written < unpacked / 3
    repeated(spectrogram_frame(1), MAX_ROWS + 1).write_parquet(path)
    with pytest.raises(DataError, match="more than 43,200 rows"):
        read_spectrogram(path)


def peak_bytes() -> int:
    resource = pytest.importorskip("resource", reason="measures memory as POSIX does")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def test_unknown_columns_are_not_unpacked(tmp_path: Path) -> None:
    """As many as a file can name are left where they are."""
    frame = eeg_frame()
    more = frame.with_columns(pl.lit("x" * 1000).alias(f"note {i}") for i in range(5))
    more.write_parquet(tmp_path / "1.parquet")
    np.testing.assert_array_equal(read_eeg(tmp_path / "1.parquet"), frame.to_numpy().astype(np.float16))


def test_a_file_of_100_gb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "1.parquet"
    path.touch()
    os.truncate(path, 100_000_000_000)  # a hole, which takes no room
    for read in (read_eeg, read_spectrogram):
        with pytest.raises(DataError, match="100,000 MB, where such a file has at most 268"):
            read(path)


@pytest.mark.skipif(os.name != "posix", reason="makes devices, pipes and links as POSIX has them")
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/random", "fifo", "folder", "itself", "nowhere"])
def test_what_is_no_file_is_refused_and_never_read(tmp_path: Path, target: str) -> None:
    path = tmp_path / "1.parquet"
    if target == "fifo":
        os.mkfifo(path)  # opening it would wait for a writer for ever
    elif target == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if target == "itself" else target)
    with pytest.raises(DataError, match=r"1.parquet: (is no file|no such file|cannot be read)"):
        read_eeg(path)


def test_too_little_memory_costs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eeg_frame().write_parquet(tmp_path / "1.parquet")

    def full(*_: object, **__: object) -> object:
        raise MemoryError

    for name in ("polars.read_parquet", "kagglehms.data.readers.encode_eeg"):
        with monkeypatch.context() as patched:
            patched.setattr(name, full)
            with pytest.raises(DataError, match="does not fit into the memory that is left"):
                read_eeg(tmp_path / "1.parquet")


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from kagglehms.data.readers import read_eeg
from kagglehms.errors import DataError
read_eeg(Path(sys.argv[1]))  # all code is loaded
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for left in (500 << 20, 300 << 20, 100 << 20, 10 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + left, resource.RLIM_INFINITY))
    for path in sys.argv[1:]:
        try:
            read_eeg(Path(path))
        except DataError as error:
            print(error.reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_a_limit_of_memory_costs_files_and_never_the_process(tmp_path: Path) -> None:
    small, large = tmp_path / "1.parquet", tmp_path / "2.parquet"
    eeg_frame().write_parquet(small)
    repeated(eeg_frame(1), MAX_TIMES).write_parquet(large)
    command = [sys.executable, "-c", LITTLE_MEMORY, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"does not fit into the memory that is left"}
