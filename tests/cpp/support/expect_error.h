// Runs a statement that must throw a given error whose message holds given parts.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace vila::testing_support {

template <class E, class F>
void expect_error(F&& f, std::initializer_list<std::string_view> parts) {
  try {
    f();
  } catch (const E& error) {
    for (const std::string_view part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no \"" << part << "\" in: " << error.what();
    }
    return;
  }
  ADD_FAILURE() << "expected an error";
}

}  // namespace vila::testing_support
