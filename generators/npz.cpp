#include "generators/npz.h"

#include <archive.h>
#include <archive_entry.h>

#include <bit>
#include <cstring>
#include <memory>

#include "core/error.h"
#include "core/shared_library.h"

namespace drydock::generators {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are written as they lie in memory");

std::string npy(const NpzArray& array) {
  return std::visit(
      [](const auto& values) {
        using Value = typename std::decay_t<decltype(values)>::value_type;
        const std::string type = std::is_same_v<Value, double> ? "<f8" : "<i8";
        std::string header =
            "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + std::to_string(values.size()) + ",), }";
        constexpr size_t kPrefix = 10, kAlign = 64;  // magic, version, length; the data begins at a multiple
        header.append((kAlign - (kPrefix + header.size() + 1) % kAlign) % kAlign, ' ');
        header += '\n';
        std::string out("\x93NUMPY\x01\x00", 8);
        out += static_cast<char>(header.size() & 255);
        out += static_cast<char>(header.size() >> 8);
        out += header;
        out.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value));
        return out;
      },
      array.values);
}

// By the types of its own header, so that a mismatch is a compiler's error.
struct ArchiveLibrary {
  core::SharedLibrary library{{"libarchive.so.13"}, "libarchive13"};
#define DRYDOCK_ARCHIVE(name) \
  decltype(&::archive_##name) name = library.find<decltype(&::archive_##name)>("archive_" #name)
  DRYDOCK_ARCHIVE(write_new);
  DRYDOCK_ARCHIVE(write_free);
  DRYDOCK_ARCHIVE(write_set_format_zip);
  DRYDOCK_ARCHIVE(write_zip_set_compression_store);
  DRYDOCK_ARCHIVE(write_set_bytes_per_block);
  DRYDOCK_ARCHIVE(write_open_memory);
  DRYDOCK_ARCHIVE(write_header);
  DRYDOCK_ARCHIVE(write_data);
  DRYDOCK_ARCHIVE(write_close);
  DRYDOCK_ARCHIVE(error_string);
  DRYDOCK_ARCHIVE(entry_new);
  DRYDOCK_ARCHIVE(entry_free);
  DRYDOCK_ARCHIVE(entry_set_pathname);
  DRYDOCK_ARCHIVE(entry_set_size);
  DRYDOCK_ARCHIVE(entry_set_filetype);
  DRYDOCK_ARCHIVE(entry_set_perm);
  DRYDOCK_ARCHIVE(entry_set_mtime);
#undef DRYDOCK_ARCHIVE
};

const ArchiveLibrary& libarchive() {
  static const ArchiveLibrary library;
  return library;
}

using ArchiveWriter = std::unique_ptr<archive, int (*)(archive*)>;
using ArchiveEntry = std::unique_ptr<archive_entry, void (*)(archive_entry*)>;

void check_archive(archive* writer, la_int64_t result) {
  if (result >= ARCHIVE_OK) return;
  const char* why = libarchive().error_string(writer);
  throw core::Error(std::string("writing an NPZ archive: ") + (why ? why : "failed"));
}

}  // namespace

std::string npz(const std::vector<NpzArray>& arrays) {
  std::vector<std::string> files;
  size_t room = 4096;
  constexpr size_t kEntryRoom = 1024;  // headers before the file and in the directory
  for (const NpzArray& array : arrays) {
    files.push_back(npy(array));
    room += files.back().size() + array.name.size() * 2 + kEntryRoom;
  }
  std::string out(room, '\0');
  size_t used = 0;
  const ArchiveWriter writer(libarchive().write_new(), libarchive().write_free);
  check_archive(writer.get(), libarchive().write_set_format_zip(writer.get()));
  check_archive(writer.get(), libarchive().write_zip_set_compression_store(writer.get()));
  check_archive(writer.get(), libarchive().write_set_bytes_per_block(writer.get(), 0));  // no padding at the end
  check_archive(writer.get(), libarchive().write_open_memory(writer.get(), out.data(), out.size(), &used));
  for (size_t i = 0; i < arrays.size(); ++i) {
    const ArchiveEntry entry(libarchive().entry_new(), libarchive().entry_free);
    libarchive().entry_set_pathname(entry.get(), (arrays[i].name + ".npy").c_str());
    libarchive().entry_set_size(entry.get(), static_cast<la_int64_t>(files[i].size()));
    libarchive().entry_set_filetype(entry.get(), AE_IFREG);
    libarchive().entry_set_perm(entry.get(), 0644);
    libarchive().entry_set_mtime(entry.get(), 0,
                                 0);  // before ZIP's first year in every zone, so written as its beginning
    check_archive(writer.get(), libarchive().write_header(writer.get(), entry.get()));
    check_archive(writer.get(), libarchive().write_data(writer.get(), files[i].data(), files[i].size()));
  }
  check_archive(writer.get(), libarchive().write_close(writer.get()));
  out.resize(used);
  return out;
}

}  // namespace drydock::generators
