#pragma once
// Small mixed-integer programs, solved by COIN-OR CBC, which is opened when the first one is.
//
// Why CBC: Debian 12 has no HiGHS; GLPK is under the GPL, which this project's licence can't take in, and slower on
// such programs; CBC is under the EPL-2.0 and has a C interface. It is opened at run time because its 20 shared
// libraries would cost every other command some milliseconds to load.
#include <cstddef>
#include <utility>
#include <vector>

namespace drydock::configurator {

// Minimise sum cost x, with low <= row <= high and 0 <= x <= most.
struct IntegerProgram {
  struct Column {
    double cost = 0;
    double most = 0;
    bool whole = true;
    std::vector<std::pair<size_t, double>> entries;  // row, coefficient
  };
  struct Row {
    double low = 0, high = 0;  // +-INFINITY: none
  };
  std::vector<Column> columns;
  std::vector<Row> rows;
};

struct IntegerAnswer {
  bool feasible = false;
  std::vector<double> x;  // whole where they must be, to the bit
  double value = 0;
  double bound = 0;  // no solution is below: `value` where it was proven to be the best
};

// The same program has the same answer: the search is bounded by nodes, not by time. Throws core::Error when the
// library can't be opened, naming the Debian package.
IntegerAnswer minimum(const IntegerProgram& program);

}  // namespace drydock::configurator
