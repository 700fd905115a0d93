#include "runtime/block_hasher.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstring>

#include "core/error.h"

namespace drydock::runtime {

struct BlockHasher::Context {
  EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* state = EVP_MD_CTX_new();
  Context() = default;
  Context(const Context&) = delete;
  ~Context() {
    EVP_MD_CTX_free(state);
    EVP_MD_free(algorithm);
  }
};

BlockHasher::BlockHasher(int64_t block_tokens) : context_(std::make_unique<Context>()), block_tokens_(block_tokens) {
  if (!context_->algorithm || !context_->state || RAND_bytes(key_.data(), static_cast<int>(key_.size())) != 1)
    throw core::Error("libcrypto has no SHA-256 or no random numbers");
}

BlockHasher::~BlockHasher() = default;

void BlockHasher::extend(Chain& chain, std::span<const Token> tokens, std::vector<uint64_t>& names) {
  const int64_t full = static_cast<int64_t>(tokens.size()) / block_tokens_;
  EVP_MD_CTX* state = context_->state;
  for (; chain.blocks < full; ++chain.blocks) {
    const auto block =
        tokens.subspan(static_cast<size_t>(chain.blocks * block_tokens_), static_cast<size_t>(block_tokens_));
    const bool done = EVP_DigestInit_ex(state, context_->algorithm, nullptr) == 1 &&
                      EVP_DigestUpdate(state, key_.data(), key_.size()) == 1 &&
                      EVP_DigestUpdate(state, chain.last.data(), chain.last.size()) == 1 &&
                      EVP_DigestUpdate(state, block.data(), block.size_bytes()) == 1 &&
                      EVP_DigestFinal_ex(state, chain.last.data(), nullptr) == 1;
    if (!done) throw core::Error("libcrypto's SHA-256 failed");
    uint64_t name = 0;
    std::memcpy(&name, chain.last.data(), sizeof(name));
    names.push_back(name);
  }
}

}  // namespace drydock::runtime
