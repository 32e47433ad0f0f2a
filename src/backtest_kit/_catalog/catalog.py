"""Reading and writing a catalog, on a disk or in an object store."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from backtest_kit._catalog.layout import Month, SeriesKey, key_of_folder, month_of_file
from backtest_kit._catalog.month import EMPTY, MonthData, Passport, Revision, passport_of
from backtest_kit._catalog.spans import Span
from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import COLUMNS, Candles
from backtest_kit._values.errors import BadCandlesError, RegistrationError

#: In the metadata of each Parquet file: what a merge has to know, written with it in one go.
_META: Final = b"backtest-kit"
#: How the names of files end that are being written.
_UNFINISHED: Final = ".tmp"


class _Meta(msgspec.Struct, frozen=True):
    covered: tuple[Span, ...]
    duplicates: int = 0
    revisions: tuple[Revision, ...] = ()


class Catalog:
    """The files under an address: a path, or a URI that pyarrow or fsspec knows (`s3://...`).

    Files are replaced whole, so that several machines may read while one writes.

    Raises:
        RegistrationError: the address can't be used.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        from pyarrow import fs

        self.address = os.fspath(address)
        self._fs, self._root = _file_system(self.address)
        self._local = isinstance(self._fs, fs.LocalFileSystem)

    @property
    def absolute(self) -> str:
        """The address, wherever the process is."""
        return self._root if self._local else self.address

    def series(self) -> list[SeriesKey]:
        """Return the series there are, by exchange, symbol and interval; raises OSError."""
        folders = {str(Path(path).parent) for path, _ in self._files("")}
        found = (key_of_folder(folder) for folder in folders)
        return sorted(key for key in found if key is not None)

    def months(self, key: SeriesKey) -> list[Month]:
        """Return the months of a series for which there is a file, ascending; raises OSError."""
        return sorted(month for _, month in self._files(key.folder))

    def read(self, key: SeriesKey, month: Month) -> MonthData:
        """Return a month, checked; an empty one if there is none.

        Raises:
            BadCandlesError: the file is damaged.
            OSError: it can't be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(key, month.file)
        try:
            with self._fs.open_input_file(path) as stream:
                table = pq.read_table(stream)
        except FileNotFoundError:
            return EMPTY
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path} can't be read as Parquet: {error}") from None
        meta = _read_meta(table.schema.metadata or {}, path)
        candles = _candles(table, path)
        check_series(candles, key.step)
        if len(candles) and not (
            month.first <= candles.timestamp[0] and candles.timestamp[-1] < month.end
        ):
            raise BadCandlesError(f"{path} has candles of another month")
        return MonthData(candles, meta.covered, meta.duplicates, meta.revisions)

    def covered(self, key: SeriesKey, month: Month) -> tuple[Span, ...]:
        """Return the spans of a month for which the source has answered, without its candles.

        Raises:
            BadCandlesError, OSError: as `read`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(key, month.file)
        try:
            with self._fs.open_input_file(path) as stream:
                metadata = pq.ParquetFile(stream).schema_arrow.metadata or {}
        except FileNotFoundError:
            return ()
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path} can't be read as Parquet: {error}") from None
        return _read_meta(metadata, path).covered

    def write(
        self, key: SeriesKey, month: Month, data: MonthData, source: str, now: int
    ) -> Passport:
        """Replace a month, then its passport; raises OSError, and then the old one is there.

        The candles and what is covered are one file; the passport can be made of it again.
        """
        passport = passport_of(key, month, data, source, now)
        self._replace(self._path(key, month.file), _parquet(data))
        text = msgspec.json.format(msgspec.json.encode(passport), indent=1)
        self._replace(self._path(key, month.passport), text, durable=False)
        return passport

    def passport(self, key: SeriesKey, month: Month) -> Passport | None:
        """Return what is known of a month; made anew where it is missing, damaged or out of date.

        Raises:
            BadCandlesError, OSError: as `read`.
        """
        path = self._path(key, month.passport)
        kept: Passport | None = None
        try:
            with self._fs.open_input_file(path) as stream:
                kept = msgspec.json.decode(stream.read(), type=Passport)
        except (FileNotFoundError, msgspec.MsgspecError):
            kept = None
        covered = self.covered(key, month)
        if kept is not None and kept.covered == covered:
            return kept
        data = self.read(key, month)
        if not data.covered and not len(data.candles):
            return None
        source, at = (kept.source, kept.downloaded_at) if kept is not None else ("unknown", 0)
        return passport_of(key, month, data, source, at)

    def has_candles(self, key: SeriesKey) -> bool:
        """Say whether a series has any candle; raises as `read`."""
        passports = (self.passport(key, month) for month in self.months(key))
        return any(passport is not None and passport.rows for passport in passports)

    def size(self, key: SeriesKey) -> int:
        """Return the bytes of a series' candles; raises OSError."""
        return sum(info.size or 0 for info in self._infos(key.folder))

    def file(self, key: SeriesKey, month: Month) -> Any:
        """Open the Parquet file of a month, to be read in parts; raises OSError."""
        return self._fs.open_input_file(self._path(key, month.file))

    def sweep(self) -> None:
        """Remove what writers that were killed have left; raises OSError. Nobody else may write."""
        if self._local:
            for left in Path(self._root).rglob(f".*{_UNFINISHED}"):
                left.unlink(missing_ok=True)

    def _path(self, key: SeriesKey, name: str) -> str:
        return f"{self._root}/{key.folder}/{name}"

    def _files(self, folder: str) -> Iterator[tuple[str, Month]]:
        """Yield the path within the catalog and the month of each file of candles."""
        for info in self._infos(folder):
            month = month_of_file(info.base_name)
            assert month is not None
            yield info.path[len(self._root) :].lstrip("/"), month

    def _infos(self, folder: str) -> list[Any]:
        from pyarrow import fs

        place = f"{self._root}/{folder}".rstrip("/")
        chosen = fs.FileSelector(place, recursive=True, allow_not_found=True)
        infos = self._fs.get_file_info(chosen)
        return [i for i in infos if i.is_file and month_of_file(i.base_name) is not None]

    def _replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Write a file whole: a reader, and a machine that fails, find the old or the new one.

        One that is not `durable` may be damaged when the machine fails.
        """
        if not self._local:
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(path) as stream:
                stream.write(content)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=_UNFINISHED)
        temporary = Path(name)
        try:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)
            temporary.chmod(0o644)
            os.replace(temporary, target)  # noqa: PTH105 - the same calls as the state's files
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable and os.name == "posix":
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        RegistrationError: neither pyarrow nor fsspec knows it.
    """
    import pyarrow as pa
    from pyarrow import fs

    if "://" not in address:
        return fs.LocalFileSystem(), str(Path(address).absolute())
    try:
        found, root = fs.FileSystem.from_uri(address)
    except (OSError, pa.ArrowInvalid) as error:
        try:
            store, root = import_module("fsspec.core").url_to_fs(address)
        except (ImportError, ValueError, OSError) as other:
            raise RegistrationError(
                f"catalog {address!r} can't be used: {error} (pyarrow); {other} (fsspec)"
            ) from None
        found = fs.PyFileSystem(fs.FSSpecHandler(store))
    return found, root.rstrip("/")


def _parquet(data: MonthData) -> bytes:
    """Return a month as the bytes of a Parquet file: the same data give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = _Meta(data.covered, data.duplicates, data.revisions)
    times, *values = data.candles.columns()
    names = [("timestamp", pa.timestamp("ms", tz="UTC")), *((n, pa.float64()) for n in COLUMNS[1:])]
    table = pa.table(
        [pa.array(times).cast(names[0][1]), *map(pa.array, values)],
        schema=pa.schema(names, metadata={_META: msgspec.json.encode(meta)}),
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=max(len(table), 1))
    return sink.getvalue()


def _read_meta(metadata: dict[bytes, bytes], path: str) -> _Meta:
    try:
        return msgspec.json.decode(metadata[_META], type=_Meta)
    except KeyError:
        raise BadCandlesError(
            f"{path} was not written by a download; import it: backtest-kit data import"
        ) from None
    except msgspec.MsgspecError as error:
        raise BadCandlesError(f"{path} has damaged metadata: {error}") from None


def _candles(table: Any, path: str) -> Candles:
    import pyarrow as pa

    try:
        times = table.column("timestamp").cast(pa.timestamp("ms")).cast(pa.int64())
        others = (table.column(name).to_numpy() for name in COLUMNS[1:])
        return Candles(times.to_numpy().astype(np.int64), *others)
    except (KeyError, pa.ArrowInvalid) as error:
        raise BadCandlesError(f"{path} does not have the columns of candles: {error}") from None
