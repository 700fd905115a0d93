#include "runtime/sse.h"

#include <algorithm>

namespace drydock::runtime {

void SseReader::reset() { *this = {}; }

void SseReader::feed(std::string_view bytes, const std::function<void(std::string_view)>& event) {
  while (!bytes.empty()) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    if ((event_bytes_ += end) > kMostEventBytes)
      throw core::Error("event stream: an event of over " + std::to_string(kMostEventBytes) + " bytes");
    if (end == bytes.size()) {
      line_.append(bytes);
      return;
    }
    after_cr_ = bytes[end] == '\r';
    const std::string_view rest = bytes.substr(end + 1);
    if (line_.empty()) {
      line(bytes.substr(0, end), event);  // the usual case: no copy
    } else {
      line_.append(bytes.substr(0, end));
      line(line_, event);
      line_.clear();
    }
    bytes = rest;
  }
}

void SseReader::line(std::string_view text, const std::function<void(std::string_view)>& event) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (first_line_ && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  first_line_ = false;
  if (text.empty()) {
    if (has_data_) event(data_);
    data_.clear();
    has_data_ = false;
    event_bytes_ = 0;
    return;
  }
  if (!text.starts_with("data")) return;
  text.remove_prefix(4);
  if (!text.empty() && text.front() != ':') return;  // a field whose name only begins so
  if (!text.empty()) text.remove_prefix(1);
  if (text.starts_with(' ')) text.remove_prefix(1);
  if (has_data_) data_ += '\n';
  has_data_ = true;
  data_.append(text);
}

}  // namespace drydock::runtime
