#include "simulator/trace.h"

#include <string>
#include <utility>

#include "core/error.h"
#include "simulator/line_reader.h"
#include "simulator/option_check.h"

namespace drydock::simulator {
namespace {

using core::Error;

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

std::string at_line(const LineReader& lines) {
  return lines.file().string() + ": line " + std::to_string(lines.line()) + ": ";
}

constexpr std::string_view kTooLong = "over 1 MiB; want one request a line";

// The first line that is not blank.
std::string first_line(LineReader& lines) {
  while (const auto line = lines.next()) {
    if (lines.too_long()) throw Error(at_line(lines) + std::string(kTooLong));
    if (!blank(*line)) return std::string(*line);
  }
  throw Error(lines.file().string() + ": empty; want a trace of requests");
}

class FileTrace : public Trace {
 public:
  explicit FileTrace(const TraceOptions& options)
      : options_(options), lines_(options.path), hasher_(options.prefix, options.seed, 0) {
    const std::string first = first_line(lines_);
    open(first);
    if (parser_->has_header() || !accept(first)) advance();
    if (next_us_ == kNever && options_.most_requests.value_or(1) > 0)
      throw Error(lines_.file().string() + ": no requests in it" +
                  (bad_lines_ > 0 ? ", but " + std::to_string(bad_lines_) + " bad lines" : "; want at least one"));
  }

  double next_us() const override { return next_us_; }
  bool done() const override { return next_us_ == kNever; }
  int64_t bad_lines() const override { return bad_lines_; }
  TraceFormat format() const override { return parser_->format(); }
  int64_t hash_tokens() const override {
    return format() == TraceFormat::mooncake ? kMooncakeBlockTokens : hasher_.hash_tokens();
  }

  Arrival take() override {
    std::swap(hashes_, ahead_.hashes);
    std::swap(last_time_, ahead_.time);
    if (format() != TraceFormat::mooncake) hasher_.hash(ahead_.prompt_tokens, hashes_);
    const Arrival arrival{next_us_, ahead_.prompt_tokens, ahead_.output_tokens, hashes_, taken_++};
    advance();
    return arrival;
  }

 private:
  void open(std::string_view first) {
    try {
      parser_.emplace(options_.format, first);
    } catch (const Error& error) {
      throw Error(at_line(lines_) + error.what());
    }
    if (options_.prefix.hit > 0 && format() == TraceFormat::mooncake)
      throw Error(lines_.file().string() + ": has hashes of its own; want no share of a common prefix with it");
  }

  void advance() {
    next_us_ = kNever;
    if (options_.most_requests && taken_ >= *options_.most_requests) return;
    while (const auto line = lines_.next())
      if (!blank(*line) && accept(*line)) return;
  }

  // True: `line` is the next arrival.
  bool accept(std::string_view line) {
    next_us_ = kNever;
    if (options_.most_requests && taken_ >= *options_.most_requests) return true;
    try {
      read(line);
      return true;
    } catch (const Error& error) {
      ++bad_lines_;
      if (!options_.skip_bad)
        throw Error(at_line(lines_) + error.what() +
                    (lines_.ended() || lines_.too_long() ? "" : "; the file may be cut short"));
      return false;
    }
  }

  void read(std::string_view line) {
    if (lines_.too_long()) throw Error(std::string(kTooLong));
    parser_->parse(line, ahead_);
    if (!origin_ticks_) {
      origin_ticks_ = last_ticks_ = ahead_.ticks;
      last_line_ = lines_.line();
    }
    if (ahead_.ticks < last_ticks_)
      throw Error("time " + ahead_.time + " is before " + last_time_ + " on line " + std::to_string(last_line_) +
                  "; want requests in order of time");
    last_ticks_ = ahead_.ticks;
    last_line_ = lines_.line();
    next_us_ = static_cast<double>(ahead_.ticks - *origin_ticks_) / kTicksPerUs / options_.speed;
  }

  TraceOptions options_;
  LineReader lines_;
  PrefixHasher hasher_;
  std::optional<TraceLineParser> parser_;
  TraceRecord ahead_;             // the next arrival, when next_us_ is finite
  std::vector<uint64_t> hashes_;  // of the last one
  std::string last_time_;         // of the last one
  std::optional<int64_t> origin_ticks_;
  int64_t last_ticks_ = 0, last_line_ = 0, taken_ = 0, bad_lines_ = 0;
  double next_us_ = kNever;
};

}  // namespace

std::unique_ptr<Trace> open_trace(const TraceOptions& options) {
  check_range("trace speed", options.speed, 1e-9, 1e9);
  if (options.most_requests) check_range("most requests", *options.most_requests, 0, int64_t{1} << 53);
  check_sharing(options.prefix);
  return std::make_unique<FileTrace>(options);
}

}  // namespace drydock::simulator
