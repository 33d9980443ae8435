"""Minting: as many codes of a batch as wanted, one after the other."""

from collections.abc import Iterator

from fcodes.alphabet import grouped
from fcodes.check import weighted_sum
from fcodes.codec import BATCH_MAX, BATCH_SHIFT, MAC_SHIFT, SERIAL_MAX, SERIAL_SHIFT, VERSION_SHIFT, require
from fcodes.keys import Keys, mac_in, message
from fcodes.mac import Mac


def mint(keys: Keys, batch: int, serials: range, *, version: int | None = None) -> Iterator[str]:
    """Yield the code of each serial of a batch, in canonical text, as it is asked for: memory stays flat.

    Minting is deterministic: the same keys, batch, version and serials give the same codes, so a batch can be exported
    again as long as its version's key is in the ring. `version`: default the newest; whoever keeps batches keeps the
    version with each. A batch or serial out of range, or a version without a key, is a ValueError, raised at once.
    """
    version = keys.newest if version is None else version
    require(batch, BATCH_MAX, "batch")
    if serials:
        require(min(serials[0], serials[-1]), SERIAL_MAX, "serial")
        require(max(serials[0], serials[-1]), SERIAL_MAX, "serial")
    key = keys.batch_key(version, batch)
    if key is None:
        raise ValueError(f"The key ring has no key of version {version}: it is {keys!r}.")
    return _codes(key, batch, version, serials)


def _codes(key: Mac, batch: int, version: int, serials: range) -> Iterator[str]:
    fixed = batch << BATCH_SHIFT | version << VERSION_SHIFT
    digest = key.digest
    for serial in serials:
        mac = mac_in(digest(message(version, batch, serial)))
        word = fixed | serial << SERIAL_SHIFT | mac << MAC_SHIFT
        yield grouped(word | weighted_sum(word))
