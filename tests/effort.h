#pragma once
// How much random tests do: under the sanitizers, which are ten times as slow, a tenth.
namespace drydock::tests {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kLighter = 10;
#else
inline constexpr int kLighter = 1;
#endif

}  // namespace drydock::tests
