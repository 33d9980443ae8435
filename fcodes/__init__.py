"""F-codes: priority rights to buy one unit each, signed instead of stored.

A code carries its batch, its serial, the version of its key and a MAC, and one check symbol that lets a browser catch
a typo without the key. So a forged code is refused without asking any store, and a spent one is a bit in the gate.

The library is pure: no I/O, no clock, no randomness of its own. Keys and entropy come in as arguments, and it knows
nothing of drops, members, Redis or Postgres: `flashsale` builds on it, never the other way round. Only its small
command line (`fcodes keygen`, `check`, `vectors`) reads the environment, a file or standard input.

    keys = Keys.parse("0:fck1_…")
    codes = mint(keys, batch=7, serials=range(50))        # an iterator of text, however many
    match read(typed, keys):
        case Code(batch=batch, serial=serial): ...        # genuine
        case Typo() as typo: typo.detail                  # mistyped: no key was needed to tell
        case NotOurs(): ...                               # well formed, and nobody who has the keys made it

The format `fcodes/1`, complete, for ports to other languages
-------------------------------------------------------------
Everything is big-endian. `u8` and `u32` are unsigned integers of that many bits, ‖ joins bytes, names in quotes stand
for their ASCII bytes.

**Layout.** 100 bits, from the highest to the lowest:

    batch 20 · serial 22 · version 3 · MAC 50 · check 5

**Text.** Cut into twenty symbols of 5 bits, the highest first, written in Crockford's base 32,

    0123456789ABCDEFGHJKMNPQRSTVWXYZ      (values 0 to 31: no I, L, O, U)

in five groups of four with a dash between: `XXXX-XXXX-XXXX-XXXX-XXXX`. The first group is the batch, the next five
symbols are serial and version, the next ten the MAC, the last one is the check symbol.

**Keys.** A master key is 32 random bytes; as text `fck1_` and its 43 characters of base64url without padding. A key
ring is up to eight of them, each under its version, 0 to 7: `0:fck1_…,1:fck1_…`; a key alone is version 0. New codes
are minted with the highest version, old ones verified with their own. A code's MAC key is made by HKDF (RFC 5869)
with SHA-256:

    prk     = HKDF-Extract(salt = "fcodes/1", IKM = master key)
    mac_key = HKDF-Expand(prk, info = "mac" ‖ u8(version) ‖ u32(batch), L = 32)

and the fingerprint that names a master key without telling it is HKDF-Expand(prk, info = "fingerprint", L = 4) in hex.

**MAC.** The first 50 bits of HMAC-SHA256(mac_key, u8(version) ‖ u32(batch) ‖ u32(serial)). A guess succeeds once in
2^50. Compare in constant time.

**Check symbol.** The symbols s0 … s19, the check symbol among them, are the coefficients of a polynomial over GF(32)
whose value at the generator g = x is zero, with GF(32) = GF(2)[x] / (x^5 + x^2 + 1):

    g^19·s0 + g^18·s1 + … + g·s18 + s19 = 0

By Horner's rule, `sum` beginning at 0: for each of s0 … s18, sum = sum XOR symbol, then sum = g·sum; s19 = sum. To
multiply by g, shift left by one, and if bit 5 is set then, XOR 0b100101. g has order 31, so the twenty weights are
distinct and none is zero. One wrong symbol, off by d, changes the value by g^k·d ≠ 0; two different symbols a and b
that change places change it by (g^j + g^k)·(a + b) ≠ 0: both are always found, whatever the places. Of everything
else, one in 32 passes, and meets the MAC.

**Reading.** At most 64 characters (code points), before and after Unicode NFKC, which turns full-width forms into
plain ones; more are refused unread. Then leave out what separates: every character of the general categories Zs, Zl,
Zp (spaces), Cf (invisible), Pd (dashes), Pc (underscores), the controls U+0009 to U+000D, and the look-alikes of a
dash U+2212 (minus), U+2043 (hyphen bullet), U+02D7 (modifier minus) and U+30FC (the long vowel mark); ASCII letters
in either case; O is 0, I and L are 1. Twenty symbols must remain. What is wrong is told by the first that applies:
`too_long`, `empty`, `symbol` (a character that no code has), `length`, `check`.

`vectors.json`, beside this file, has test vectors with every step in between; `fcodes vectors` writes it.
"""

from fcodes.batch import mint
from fcodes.codec import (
    BATCH_MAX,
    CODES_PER_BATCH_MAX,
    MAC_MAX,
    SERIAL_MAX,
    TEXT_MAX_CHARS,
    VERSION_MAX,
    Code,
    Slip,
    Typo,
    parse,
    spell,
)
from fcodes.keys import KEY_BYTES, BadKeys, Keys, new_master
from fcodes.verify import NotOurs, read, verify

__all__ = [
    "BATCH_MAX",
    "CODES_PER_BATCH_MAX",
    "KEY_BYTES",
    "MAC_MAX",
    "SERIAL_MAX",
    "TEXT_MAX_CHARS",
    "VERSION_MAX",
    "BadKeys",
    "Code",
    "Keys",
    "NotOurs",
    "Slip",
    "Typo",
    "mint",
    "new_master",
    "parse",
    "read",
    "spell",
    "verify",
]
