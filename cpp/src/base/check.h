// Checks of the library's own invariants: a failure is a bug in us and becomes an InternalError, never an abort.
#pragma once

#include <string>

#include "vila/error.h"

namespace vila {

[[noreturn]] inline void fail_check(const char* condition, const char* file, int line) {
  throw InternalError("[internal] check failed: " + std::string(condition) + " at " + file + ":" +
                      std::to_string(line) + "; this is a bug, please report it");
}

}  // namespace vila

#define VILA_CHECK(condition) ((condition) ? static_cast<void>(0) : ::vila::fail_check(#condition, __FILE__, __LINE__))
