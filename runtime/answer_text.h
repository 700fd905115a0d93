#pragma once
// Tokens' bytes to the text a client may see: whole characters only, and nothing of a stop string.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::runtime {

// Bytes that come in pieces to valid UTF-8: the start of a character is held back until the rest has come, and what
// can't be one becomes U+FFFD, one for each maximal part (Unicode Standard 15, section 3.9, "substitution of maximal
// subparts").
class Utf8Assembler {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // what is held will not be completed

 private:
  std::string held_;  // the start of one character
};

// Finds the stop string that is complete first, wherever pieces end; of several that end at the same byte, the longest.
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops);  // valid UTF-8

  // Appends what can't be the start of a stop string. True: one was found, and `out` ends before it.
  bool push(std::string_view text, std::string& out);
  void finish(std::string& out);  // the text ends without a stop string

 private:
  // Knuth, Morris, Pratt, SIAM J. Comput. 6, 1977: border[i] is the length of the longest proper prefix of the first i
  // bytes that is also their end.
  struct Pattern {
    std::string text;
    std::vector<uint32_t> border;
    size_t matched = 0;  // bytes of `text` that end the text so far
    void step(char c);
  };
  std::vector<Pattern> patterns_;
  std::string held_;  // the longest `matched`
};

// Both, one after the other, and where in the text it is.
class AnswerText {
 public:
  explicit AnswerText(const std::vector<std::string>& stops) : stops_(stops) {}

  // True: a stop string was found; nothing may be pushed any more.
  bool push(std::string_view bytes, std::string& out);
  void finish(std::string& out);

  int64_t characters() const { return characters_; }  // of the text so far, held-back stop strings included
  int64_t shown() const { return shown_; }            // characters that were given out

 private:
  Utf8Assembler utf8_;
  StopMatcher stops_;
  std::string whole_;
  int64_t characters_ = 0, shown_ = 0;
};

// Code points of valid UTF-8.
int64_t count_characters(std::string_view text);

}  // namespace drydock::runtime
