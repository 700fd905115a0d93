#pragma once
// A library that few commands need, opened by the first who does: linked, it would be loaded, with all that it needs
// itself, at every start of the program.
#include <initializer_list>
#include <string>

namespace drydock::core {

// Open to the end of the process, so that its functions may be kept.
class SharedLibrary {
 public:
  // The first of `names` that can be opened. Throws core::Error that names `package`, Debian's, when there is none.
  SharedLibrary(std::initializer_list<const char*> names, std::string package);

  // `Function`: a pointer type, of the library's own header. Throws core::Error when the library lacks it.
  template <typename Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(address(name));
  }

 private:
  void* address(const char* name) const;

  std::string package_;
  void* handle_ = nullptr;
};

}  // namespace drydock::core
