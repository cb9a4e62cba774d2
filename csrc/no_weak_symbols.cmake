# SPDX-License-Identifier: MIT
# Fails if an object defines a symbol that the linker may replace by another object's. The CPU
# kernels are compiled once per instruction set: merged, an inline function compiled for AVX-512
# would run on a processor that has none.
#   cmake -DNM=nm -DOBJECTS=a.o,b.o -P csrc/no_weak_symbols.cmake
string(REPLACE "," ";" OBJECTS "${OBJECTS}")
execute_process(COMMAND ${NM} -C ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
if(weak)
  list(JOIN weak "\n  " weak)
  message(FATAL_ERROR "kernels must keep every function to themselves, see csrc/common/vec.h:\n"
                      "  ${weak}")
endif()
