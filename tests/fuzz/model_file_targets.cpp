// Files of models: weights and tokenizers.
#include "runtime/safetensors.h"
#include "runtime/tokenizer.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"

namespace drydock::fuzz {

void safetensors(std::string_view input) {
  refusable([&] {
    const auto bytes = std::as_bytes(std::span(input.data(), input.size()));
    for (const auto& [name, tensor] : runtime::parse_safetensors(bytes, "x.safetensors")) {
      // Every byte that is promised can be read.
      unsigned sum = 0;
      for (const std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
      expect(sum <= 255 * tensor.data.size(), "bytes are bytes");
      expect(tensor.data.size() == static_cast<size_t>(tensor.elements * element_bytes(tensor.dtype)),
             "a tensor has the bytes of its shape");
    }
  });
}

void tokenizer(std::string_view input) {
  constexpr std::string_view kBreak = "\n---\n";
  const size_t at = input.find(kBreak);
  const std::string_view text =
      at == std::string_view::npos ? "Hello, w\xC3\xB6rld! 123" : input.substr(at + kBreak.size());
  refusable([&] {
    const auto codec = runtime::parse_tokenizer_codec(input.substr(0, at), "tokenizer.json");
    for (const bool specials : {false, true})
      for (const runtime::Token token : codec->encode(text, specials))
        expect(token >= 0 && token < codec->vocabulary(), "a token is of the vocabulary");
  });
}

}  // namespace drydock::fuzz
