#include "runtime/http_parser.h"

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

namespace drydock::runtime {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;

HttpRefusal refusal_of(const boost::system::error_code& error) {
  if (error == http::error::header_limit) return {431, "the request's head is too large"};
  if (error == http::error::body_limit) return {413, "the request's body is too large"};
  if (error == http::error::bad_version) return {505, "want HTTP/1.1"};
  return {400, "not an HTTP request: " + error.message()};
}

std::string field_of(const Parser::value_type& message, boost::beast::string_view name) {
  const auto found = message.find(name);
  return found == message.end() ? std::string() : std::string(found->value());
}

// What the grammar allows and a server must still refuse: RFC 9112, sections 3.2 and 6.1.
std::optional<HttpRefusal> check_head(const Parser::value_type& message) {
  if (message.version() != 11 && message.version() != 10) return HttpRefusal{505, "want HTTP/1.1"};
  if (message.version() == 11 && message.count(http::field::host) != 1) return HttpRefusal{400, "want one Host header"};
  const auto encoding = message.find(http::field::transfer_encoding);
  if (message.count(http::field::transfer_encoding) > 1 ||
      (encoding != message.end() && !boost::beast::iequals(encoding->value(), "chunked")))
    return HttpRefusal{501, "of transfer encodings only chunked is supported"};
  const auto expect = message.find(http::field::expect);
  if (expect != message.end() && !boost::beast::iequals(expect->value(), "100-continue"))
    return HttpRefusal{417, "of expectations only 100-continue is supported"};
  return std::nullopt;
}

// The absolute form, "http://host/path", is what clients send to a proxy, and servers must take it: RFC 9112,
// section 3.2.2.
std::string path_of(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  if (target.starts_with(kScheme)) {
    const size_t slash = target.find('/', kScheme.size());
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  return std::string(target.substr(0, target.find('?')));
}

}  // namespace

struct HttpParser::Impl {
  Parser parser;
  bool begun = false;
};

HttpParser::HttpParser(size_t header_bytes, size_t body_bytes) : header_bytes_(header_bytes), body_bytes_(body_bytes) {
  reset();
}

HttpParser::~HttpParser() = default;

void HttpParser::reset() {
  impl_ = std::make_unique<Impl>();
  impl_->parser.eager(true);
  impl_->parser.header_limit(static_cast<uint32_t>(header_bytes_));
  impl_->parser.body_limit(body_bytes_);
  refusal_.reset();
}

size_t HttpParser::put(std::string_view bytes) {
  if (bytes.empty() || refusal_ || done()) return 0;
  impl_->begun = true;
  const bool had_head = head_done();
  boost::system::error_code error;
  size_t taken = impl_->parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  if (error == http::error::need_more) error = {};
  if (error) refusal_ = refusal_of(error);
  if (!refusal_ && !had_head && head_done()) refusal_ = check_head(impl_->parser.get());
  return std::min(taken, bytes.size());
}

bool HttpParser::begun() const { return impl_->begun; }
bool HttpParser::head_done() const { return impl_->parser.is_header_done(); }
bool HttpParser::done() const { return impl_->parser.is_done(); }

size_t HttpParser::body_bytes() const { return impl_->parser.get().body().size(); }

bool HttpParser::wants_continue() const {
  return head_done() && !done() && impl_->parser.get().count(http::field::expect) > 0 &&
         impl_->parser.get().version() == 11;
}

HttpRequest HttpParser::head() const {
  const auto& message = impl_->parser.get();
  HttpRequest out;
  out.method = std::string(message.method_string());
  out.path = path_of({message.target().data(), message.target().size()});
  out.authorization = field_of(message, "Authorization");
  out.content_type = field_of(message, "Content-Type");
  out.content_encoding = field_of(message, "Content-Encoding");
  out.trace_parent = field_of(message, "traceparent");
  out.request_id = field_of(message, "X-Request-Id");
  out.timeout = field_of(message, "X-Request-Timeout-S");
  out.keep_alive = message.keep_alive();
  out.chunks = message.version() == 11;
  return out;
}

HttpRequest HttpParser::take() {
  HttpRequest out = head();
  out.body = std::move(impl_->parser.get().body());
  return out;
}

std::string_view status_text(int status) {
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

}  // namespace drydock::runtime
