#pragma once
// What parent and child of a worker say to each other: one JSON object a line.
#include <string>

#include "profiler/measure.h"

namespace drydock::profiler {

std::string hello_message(const Identity& identity);
std::string measured_message(const Measured& measured);
std::string parts_message(const std::vector<KernelPart>& parts);
std::string reason_message(const char* status, const std::string& reason);  // "refused" or "failed"

// What a line says; `status` is "hello", "done", "measured", "parts", "refused" or "failed".
struct Message {
  std::string status, reason;
  Identity identity;
  Measured measured;
  std::vector<KernelPart> parts;
};
// Throws core::Error on anything else.
Message parse_message(const std::string& line);

}  // namespace drydock::profiler
