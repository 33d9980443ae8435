"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import asyncpg
import psutil
import redis.asyncio as redis

from loadtests.bench.house import House


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


async def describe(house: House) -> dict[str, str]:
    """The machine, the versions, and the settings of the stores that the promise stands on."""
    load = "/".join(f"{each:.1f}" for each in os.getloadavg())
    memory_gib = psutil.virtual_memory().total / 2**30
    async with redis.from_url(house.at.redis_url or "") as client:
        server = await client.info("server")
        append_only = (await client.config_get("appendonly"))["appendonly"]
    connection = await asyncpg.connect(house.at.database_url)
    try:
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        said = {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        await connection.close()
    valkey = f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"
    return {
        "machine": f"{psutil.cpu_count()} cores, {_processor()}, {memory_gib:.0f} GiB, {platform.system()} "
        f"{platform.release()}, load average before: {load}",
        "python": f"Python {platform.python_version()}, aiohttp {version('aiohttp')}, uvloop {version('uvloop')}",
        "valkey": f"{valkey}, appendonly {append_only}",
        "postgres": ", ".join(
            [f"Postgres {said.pop('server_version')}", *(f"{name} {value}" for name, value in said.items())]
        ),
    }
