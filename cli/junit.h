#pragma once
// Test results as the XML that CI systems read: the JUnit format as Ant and Jenkins have it.
#include <string>
#include <vector>

namespace drydock::cli {

struct JunitCase {
  std::string group, name;
  std::string output;   // what is shown of a case in any event
  std::string failure;  // one line; empty: passed
};

// One suite of these cases. Bytes that are no UTF-8 are replaced.
std::string junit_xml(const std::string& suite, const std::vector<JunitCase>& cases);

}  // namespace drydock::cli
