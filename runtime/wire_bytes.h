#pragma once
// Numbers, texts and lists as bytes, and back from bytes that may be anybody's: what the files that define messages are
// written in. Reading throws core::Error on what is too short, too long or out of range.
#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "runtime/wire.h"

namespace drydock::runtime {

static_assert(std::endian::native == std::endian::little, "numbers go onto the wire as they lie in memory");

inline constexpr size_t kMostTextBytes = 4096;
inline constexpr size_t kAnyCount = SIZE_MAX;

[[noreturn]] inline void malformed(const char* what) { throw core::Error(std::string("malformed message: ") + what); }

class WireWriter {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes(std::as_bytes(std::span(&value, 1)));
  }
  void bytes(std::span<const std::byte> data) { out.insert(out.end(), data.begin(), data.end()); }
  void text(std::string_view value) {
    const std::string_view kept = value.substr(0, kMostTextBytes);
    number(static_cast<uint32_t>(kept.size()));
    bytes(std::as_bytes(std::span(kept)));
  }
  template <typename T>
  void list(const std::vector<T>& values) {
    number(static_cast<uint32_t>(values.size()));
    bytes(std::as_bytes(std::span(values)));
  }
  Bytes out;
};

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> in) : left_(in) {}

  std::span<const std::byte> bytes(size_t count) {
    if (count > left_.size()) malformed("too short");
    const auto out = left_.first(count);
    left_ = left_.subspan(count);
    return out;
  }
  template <typename T>
  T number() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  int64_t whole(int64_t least, int64_t most) {
    const auto value = number<int64_t>();
    if (value < least || value > most) malformed("a number out of range");
    return value;
  }
  double real(double most = 1e18) {
    const auto value = number<double>();
    if (!(value >= 0 && value <= most)) malformed("a number out of range");
    return value;
  }
  template <typename E>
  E choice(uint8_t last) {
    const auto value = number<uint8_t>();
    if (value > last) malformed("an unknown choice");
    return static_cast<E>(value);
  }
  bool flag() { return choice<uint8_t>(1) == 1; }
  std::string text() {
    const auto size = number<uint32_t>();
    if (size > kMostTextBytes) malformed("a text too long");
    const auto data = bytes(size);
    return {reinterpret_cast<const char*>(data.data()), data.size()};
  }
  // Elements of `each` bytes and more that still can come.
  size_t count(size_t each, size_t most) {
    const auto value = number<uint32_t>();
    if (value > most || value > left_.size() / each) malformed("more elements than bytes");
    return value;
  }
  template <typename T>
  std::vector<T> list(size_t most) {
    const size_t size = count(sizeof(T), most);
    std::vector<T> out(size);
    if (size > 0) std::memcpy(out.data(), bytes(size * sizeof(T)).data(), size * sizeof(T));
    return out;
  }
  void end() const {
    if (!left_.empty()) malformed("too long");
  }

 private:
  std::span<const std::byte> left_;
};

}  // namespace drydock::runtime
