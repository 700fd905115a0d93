#pragma once
// What every target checks of an entry: a refusal is one line, and what must hold does.
#include <stdexcept>
#include <string_view>

#include "core/error.h"

namespace drydock::fuzz {

inline void expect(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

// Lets `read` refuse its input, in one line.
template <typename Read>
void refusable(Read read) {
  try {
    read();
  } catch (const core::Error& error) {
    const std::string_view what = error.what();
    expect(!what.empty() && what.find('\n') == std::string_view::npos, "an error is one line");
  }
}

}  // namespace drydock::fuzz
