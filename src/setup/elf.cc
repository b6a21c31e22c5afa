// Reads the dynamic section and the dynamic symbols of a 64-bit little-endian ELF file, by its
// section headers.
#include "setup/elf.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/file.h"

namespace pb::setup {
namespace {

using Bytes = std::span<const std::byte>;

Result<Bytes> Slice(Bytes bytes, uint64_t offset, uint64_t size, std::string_view what) {
  if (offset > bytes.size() || size > bytes.size() - offset)
    return MakeError(Code::kMalformed, "byte {}: {} of {} bytes lies beyond the file's {} bytes", offset,
                     what, size, bytes.size());
  return bytes.subspan(offset, size);
}

template <typename T>
T At(Bytes table, size_t index) {
  return LoadLe<T>(table.data() + index * sizeof(T));
}

// Longer names are cut: what is asked for is shorter, and a file may not make them share one text
// of any length.
constexpr uint64_t kMaxName = 4096;

// The name that begins at this offset of a table of strings; empty where there is none.
std::string NameAt(Bytes strings, uint64_t offset) {
  if (offset >= strings.size()) return {};
  const char* begin = reinterpret_cast<const char*>(strings.data()) + offset;
  return {begin, strnlen(begin, std::min(strings.size() - offset, kMaxName))};
}

Result<Elf64_Ehdr> ReadHeader(Bytes bytes) {
  if (bytes.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0)
    return MakeError(Code::kMalformed, "byte 0: no shared library (no ELF file)");
  const Elf64_Ehdr header = LoadLe<Elf64_Ehdr>(bytes.data());
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64)
    return MakeError(Code::kUnsupported, "a library for another machine than x86-64 (ELF machine {})",
                     header.e_machine);
  if (header.e_type != ET_DYN)
    return MakeError(Code::kMalformed, "byte 16: no shared library (ELF type {})", header.e_type);
  if (header.e_shnum > 0 && header.e_shentsize != sizeof(Elf64_Shdr))
    return MakeError(Code::kMalformed, "byte 58: section headers of {} bytes", header.e_shentsize);
  return header;
}

// A section with the table of strings that it refers to.
struct Section {
  Bytes content, strings;
};

Result<Section> ReadSection(Bytes bytes, Bytes headers, const Elf64_Shdr& section) {
  Section read;
  if (section.sh_link >= headers.size() / sizeof(Elf64_Shdr))
    return MakeError(Code::kMalformed, "a section refers to section {}, which there is not", section.sh_link);
  const auto strings = At<Elf64_Shdr>(headers, section.sh_link);
  PB_ASSIGN(read.content, Slice(bytes, section.sh_offset, section.sh_size, "a section"));
  PB_ASSIGN(read.strings, Slice(bytes, strings.sh_offset, strings.sh_size, "a table of names"));
  return read;
}

void ReadDynamic(const Section& section, ElfLibrary* library) {
  for (size_t i = 0; i < section.content.size() / sizeof(Elf64_Dyn); ++i) {
    const auto entry = At<Elf64_Dyn>(section.content, i);
    if (entry.d_tag == DT_NULL) return;
    if (entry.d_tag == DT_SONAME) library->soname = NameAt(section.strings, entry.d_un.d_val);
    if (entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH)
      library->search = NameAt(section.strings, entry.d_un.d_val);
    if (entry.d_tag == DT_NEEDED) library->needed.push_back(NameAt(section.strings, entry.d_un.d_val));
  }
}

void ReadSymbols(const Section& section, ElfLibrary* library) {
  for (size_t i = 0; i < section.content.size() / sizeof(Elf64_Sym); ++i) {
    const auto symbol = At<Elf64_Sym>(section.content, i);
    const bool local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL;
    if (symbol.st_shndx != SHN_UNDEF && !local)
      library->exports.insert(NameAt(section.strings, symbol.st_name));
  }
}

}  // namespace

Result<ElfLibrary> ParseElf(Bytes bytes) {
  PB_ASSIGN(const Elf64_Ehdr header, ReadHeader(bytes));
  PB_ASSIGN(const Bytes headers,
            Slice(bytes, header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), "section headers"));
  ElfLibrary library;
  for (size_t i = 0; i < header.e_shnum; ++i) {
    const auto section = At<Elf64_Shdr>(headers, i);
    if (section.sh_type != SHT_DYNAMIC && section.sh_type != SHT_DYNSYM) continue;
    PB_ASSIGN(const Section read, ReadSection(bytes, headers, section));
    section.sh_type == SHT_DYNAMIC ? ReadDynamic(read, &library) : ReadSymbols(read, &library);
  }
  return library;
}

Result<ElfLibrary> ReadElf(const std::filesystem::path& path) {
  PB_ASSIGN(const MappedFile file, MappedFile::Open(path));
  Result<ElfLibrary> library = ParseElf(file.bytes());
  if (!library.ok()) return std::move(library).error().In(path.string());
  return library;
}

}  // namespace pb::setup
