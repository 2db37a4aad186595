"""Programs that open addresses by fsspec read and find what they look for: pandas, pyarrow, dask, xarray."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import dask.bag
import dask.dataframe
import numpy
import pandas
import pytest
import xarray

from filestored import Client
from filestored.client.filesystem import FilestoredFileSystem
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import make_token

ROWS = 200_000


@pytest.fixture(autouse=True)
def _no_instances_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield
    FilestoredFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def table() -> pandas.DataFrame:
    chance = numpy.random.default_rng(3)
    return pandas.DataFrame(
        {
            "number": range(ROWS),
            "weight": chance.random(ROWS),
            "city": chance.choice(["Tula", "Omsk", "Ufa"], ROWS),
        }
    )


def stored(daemon: Daemon, content: bytes, name: str) -> str:
    """Store a file; return its address."""
    with Client(daemon.url) as client:
        host, port = daemon.address
        return f"filestored://{host}:{port}/{client.put(content, name=name).hash}/{name}"


def test_pandas_reads_csv_packed_and_not(daemon: Daemon, table: pandas.DataFrame) -> None:
    few = table.head(1000)
    for name in ("few.csv", "few.csv.gz"):
        packed = io.BytesIO()
        few.to_csv(packed, index=False, compression="gzip" if name.endswith("gz") else None)
        read = pandas.read_csv(stored(daemon, packed.getvalue(), name))
        pandas.testing.assert_frame_equal(read, few)


def test_pandas_reads_a_column_of_parquet_and_only_that(start_daemon: StartDaemon, table: pandas.DataFrame) -> None:
    daemon = start_daemon()
    packed = io.BytesIO()
    table.to_parquet(packed, index=False, row_group_size=20_000)
    address = stored(daemon, packed.getvalue(), "table.parquet")
    read = pandas.read_parquet(address, columns=["city"], storage_options={"block_size": 4096})
    pandas.testing.assert_frame_equal(read, table[["city"]])
    assert wait_until(lambda: "status=206" in daemon.read_log())
    sent = re.findall(r" GET /[0-9a-f]{64} .* bytes=(\d+)", daemon.read_log())
    assert 0 < sum(map(int, sent)) < len(packed.getvalue()) / 2
    pandas.testing.assert_frame_equal(pandas.read_parquet(address), table)


def test_pandas_shows_a_token(start_daemon: StartDaemon, tmp_path: Path, table: pandas.DataFrame) -> None:
    daemon = start_daemon("--anonymous", "none", store=tmp_path / "store")
    token = make_token(daemon.store, "all", "read,write")
    with Client(daemon.url, token) as client:
        digest = client.put(table.head(3).to_csv(index=False).encode()).hash
    address = "filestored://{}:{}/{}".format(*daemon.address, digest)
    assert len(pandas.read_csv(address, storage_options={"token": token})) == 3
    with pytest.raises(PermissionError):
        pandas.read_csv(address)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_dask_reads_pieces_of_csv(daemon: Daemon, table: pandas.DataFrame, scheduler: str) -> None:
    address = stored(daemon, table.to_csv(index=False).encode(), "table.csv")
    frame = dask.dataframe.read_csv(address, blocksize=1 << 20)
    assert frame.npartitions > 3
    sums = frame.groupby("city").weight.sum().compute(scheduler=scheduler)
    pandas.testing.assert_series_equal(
        sums.sort_index(), table.groupby("city").weight.sum().sort_index(), check_index_type=False
    )


def test_dask_reads_in_other_processes(daemon: Daemon) -> None:
    lines = [f"line {number}" for number in range(10_000)]
    address = stored(daemon, "\n".join(lines).encode(), "lines.txt")
    read = dask.bag.read_text(address, blocksize=20_000)
    assert read.npartitions > 3
    assert read.map(str.strip).compute(scheduler="processes", num_workers=2) == lines


def test_xarray_reads_a_part_of_netcdf(daemon: Daemon, tmp_path: Path) -> None:
    cube = xarray.DataArray(
        numpy.arange(60 * 100 * 100, dtype="f8").reshape(60, 100, 100), dims=("time", "y", "x"), name="heat"
    )
    cube.to_dataset().to_netcdf(
        tmp_path / "cube.nc", engine="h5netcdf", encoding={"heat": {"chunksizes": (1, 100, 100)}}
    )
    address = stored(daemon, (tmp_path / "cube.nc").read_bytes(), "cube.nc")
    files = FilestoredFileSystem(server=daemon.url)
    with files.open(address) as file, xarray.open_dataset(file, engine="h5netcdf") as read:
        assert read.heat.isel(time=41).values.tolist() == cube.isel(time=41).values.tolist()
