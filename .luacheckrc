-- What a script may use inside Valkey or Redis: no io, no require, no clock but TIME, no randomness.
stds.valkey = {
  read_globals = {
    "KEYS", "ARGV", "_VERSION",
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset",
    "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
    bit = { other_fields = true },
    cjson = { other_fields = true },
    cmsgpack = { other_fields = true },
    math = {
      fields = {
        "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp",
        "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "sin", "sinh", "sqrt",
        "tan", "tanh",
      },
    },
    redis = {
      fields = {
        "acl_check_cmd", "call", "error_reply", "log", "pcall", "setresp", "sha1hex", "status_reply",
        "LOG_DEBUG", "LOG_NOTICE", "LOG_VERBOSE", "LOG_WARNING",
      },
    },
    string = { other_fields = true },
    struct = { other_fields = true },
    table = { other_fields = true },
  },
}
std = "valkey"
max_line_length = 120
