#include "core/shared_library.h"

#include <dlfcn.h>

#include <utility>

#include "core/error.h"

namespace drydock::core {

SharedLibrary::SharedLibrary(std::initializer_list<const char*> names, std::string package)
    : package_(std::move(package)) {
  for (const char* name : names)
    if (handle_ = ::dlopen(name, RTLD_NOW | RTLD_LOCAL); handle_) return;
  throw Error(std::string(*names.begin()) + " can't be opened; want Debian's package " + package_);
}

void* SharedLibrary::address(const char* name) const {
  void* const found = ::dlsym(handle_, name);
  if (!found) throw Error("package " + package_ + " lacks the function " + name + "; want that of Debian 12 or later");
  return found;
}

}  // namespace drydock::core
