#pragma once
// Names that try to break out of the files they are written to.
#include <array>
#include <string>

namespace drydock::tests {

inline const std::array<std::string, 10>& hostile_names() {
  static const std::array<std::string, 10> kNames = {
      "a'b\"c",
      "x\ny: z\n---\n",
      "$(reboot)`reboot`${HOME}",
      "../../etc/passwd",
      "{{ .Values.secret }} {% x %} [[a]]",
      "? - : , [ ] { } # & * ! | > % @ =",
      "yes",
      "\xc3\xa4\xe6\xa8\xa1\xe5\x9e\x8b \xf0\x9f\x9a\xa2",
      std::string(10000, 'k'),
      "0x1F; rm -rf /\t\\ <b>$model</b>",
  };
  return kNames;
}

}  // namespace drydock::tests
