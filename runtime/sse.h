#pragma once
// Server-sent events as a client reads them: bytes in pieces of any size, whole events out.
// The format is that of the WHATWG HTML standard, 9.2.6: lines end with LF, CR or CRLF, a blank line ends an event, a
// leading byte order mark and lines that begin with a colon are passed over. Only the field `data` is kept.
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace drydock::runtime {

class SseReader {
 public:
  static constexpr size_t kMostEventBytes = 1u << 20;  // one event with its field names; more is taken for an attack

  // Calls `event` with the data of every event that `bytes` completes; several lines of data are joined by LF, events
  // without data are passed over. The view lasts as long as the call. Throws core::Error on an event that is too long;
  // nothing more may be fed then.
  void feed(std::string_view bytes, const std::function<void(std::string_view data)>& event);
  void reset();

 private:
  void line(std::string_view text, const std::function<void(std::string_view)>& event);

  std::string line_, data_;  // of the line and the event that have begun
  size_t event_bytes_ = 0;
  bool has_data_ = false, after_cr_ = false, first_line_ = true;
};

}  // namespace drydock::runtime
