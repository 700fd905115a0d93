#pragma once
// Handles of libcurl as the benchmark client sets them up. Only bench_*.cpp include this.
#include <memory>
#include <string>

#include "runtime/bench_client.h"
#include "runtime/curl_library.h"

namespace drydock::runtime {

struct CurlEasyEnd {
  void operator()(CURL* easy) const { curl().easy_cleanup(easy); }
};
struct CurlListEnd {
  void operator()(curl_slist* list) const { curl().slist_free_all(list); }
};
using CurlEasy = std::unique_ptr<CURL, CurlEasyEnd>;
using CurlList = std::unique_ptr<curl_slist, CurlListEnd>;

void start_curl();  // once a process, before anything else; safe to call again

// Base of all pages, without a slash at its end: ".../v1". Throws core::Error when it is no http or https address.
std::string api_base(const std::string& url);
CurlList request_headers(const BenchTarget& target);
// A handle that asks `url` with these headers, HTTP/1.1, no signals. Proxies are those of the environment, but never
// for this very machine.
CurlEasy new_easy(const BenchTarget& target, const std::string& url, curl_slist* headers);

struct HttpAnswer {
  long status = 0;
  std::string body;  // at most 1 MiB
};
// GET, or POST of `body` when it is not empty. Throws core::Error when there is no answer.
HttpAnswer ask_once(const BenchTarget& target, const std::string& page, const std::string& body);

}  // namespace drydock::runtime
