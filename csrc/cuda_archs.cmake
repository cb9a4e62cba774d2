# SPDX-License-Identifier: MIT
# TORCH_CUDA_ARCH_LIST -> CMAKE_CUDA_ARCHITECTURES. Try it alone:
#   cmake -DTORCH_CUDA_ARCH_LIST="8.6 9.0+PTX" -DNVCC_VERSION=13.0 -P csrc/cuda_archs.cmake

# out: name of the variable that receives a list such as "80-real;90a-real;120" (NN-real: machine
#      code alone; NN: machine code and PTX).
# asked: "8.0;8.6", "9.0a 12.0+PTX", ..., or empty for every architecture the compiler knows.
# nvcc: the compiler's version; before 12.8 it knows no Blackwell.
function(cyclegan_fast_cuda_architectures out asked nvcc)
  string(REPLACE " " ";" asked "${asked}")
  list(REMOVE_ITEM asked "")
  if(NOT asked)
    set(asked 7.5 8.0 8.6 8.9 9.0)
    if(nvcc VERSION_GREATER_EQUAL 12.8)
      list(APPEND asked 10.0 12.0)
    endif()
    list(POP_BACK asked newest)
    list(APPEND asked ${newest}+PTX)  # so that later GPUs find something to compile
  endif()
  set(found)
  foreach(arch IN LISTS asked)
    if(NOT arch MATCHES "^([0-9]+)\\.([0-9])([af]?)(\\+PTX)?$")
      message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST: an entry must be like 8.6, 9.0a or 12.0+PTX, "
                          "got '${arch}'")
    endif()
    set(name "${CMAKE_MATCH_1}${CMAKE_MATCH_2}${CMAKE_MATCH_3}")
    if(NOT CMAKE_MATCH_4)
      string(APPEND name "-real")
    endif()
    list(APPEND found ${name})
  endforeach()
  list(REMOVE_DUPLICATES found)
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  cyclegan_fast_cuda_architectures(result "${TORCH_CUDA_ARCH_LIST}" "${NVCC_VERSION}")
  message("${result}")
endif()
