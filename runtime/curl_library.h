#pragma once
// libcurl's functions as the benchmark client calls them: curl().easy_init() is curl_easy_init(). Only bench_*.cpp
// include this.
#include <curl/curl.h>

#include "core/shared_library.h"

namespace drydock::runtime {

// By the types of its own header, so that a mismatch is a compiler's error.
struct CurlLibrary {
  core::SharedLibrary library{{"libcurl.so.4"}, "libcurl4"};
#define DRYDOCK_CURL(name) decltype(&::curl_##name) name = library.find<decltype(&::curl_##name)>("curl_" #name)
  DRYDOCK_CURL(global_init);
  DRYDOCK_CURL(slist_append);
  DRYDOCK_CURL(slist_free_all);
  DRYDOCK_CURL(easy_init);
  DRYDOCK_CURL(easy_cleanup);
  DRYDOCK_CURL(easy_setopt);
  DRYDOCK_CURL(easy_getinfo);
  DRYDOCK_CURL(easy_perform);
  DRYDOCK_CURL(easy_strerror);
  DRYDOCK_CURL(multi_init);
  DRYDOCK_CURL(multi_cleanup);
  DRYDOCK_CURL(multi_setopt);
  DRYDOCK_CURL(multi_add_handle);
  DRYDOCK_CURL(multi_remove_handle);
  DRYDOCK_CURL(multi_info_read);
  DRYDOCK_CURL(multi_assign);
  DRYDOCK_CURL(multi_socket_action);
#undef DRYDOCK_CURL
};

// Opened by the first call. Throws core::Error when it can't be.
inline const CurlLibrary& curl() {
  static const CurlLibrary library;
  return library;
}

}  // namespace drydock::runtime
