# Installs the build tree BUILD_DIR below WORK_DIR, then configures, builds and runs the foreign project against it.
#   cmake -DBUILD_DIR=... -DWORK_DIR=... -DGENERATOR=Ninja -DCXX_COMPILER=c++ -DWITH_PNG=ON -P check.cmake
foreach(name BUILD_DIR WORK_DIR GENERATOR CXX_COMPILER)
  if(NOT ${name})
    message(FATAL_ERROR "[package test] ${name} is not set")
  endif()
endforeach()

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(REPLACE ";" " " command "${ARGV}")
    message(FATAL_ERROR "[package test] ${command}: expected exit status 0, got ${result}\n${output}")
  endif()
  set(run_output "${output}" PARENT_SCOPE)
endfunction()

set(prefix "${WORK_DIR}/prefix")
set(build "${WORK_DIR}/build")
file(REMOVE_RECURSE "${WORK_DIR}")
run(
  "${CMAKE_COMMAND}"
  --install
  "${BUILD_DIR}"
  --prefix
  "${prefix}"
)

# A public header that includes a room, or a third party's header, would not compile for the consumer either.
file(GLOB_RECURSE headers RELATIVE "${prefix}/include" "${prefix}/include/*")
foreach(header IN LISTS headers)
  if(NOT header MATCHES "^vila/[a-z_]+\\.h$")
    message(FATAL_ERROR "[package test] unexpected installed header: expected vila/*.h, got ${header}")
  endif()
endforeach()

run(
  "${CMAKE_COMMAND}"
  -S
  "${CMAKE_CURRENT_LIST_DIR}"
  -B
  "${build}"
  -G
  "${GENERATOR}"
  "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}"
  "-DCMAKE_PREFIX_PATH=${prefix}"
  -DCMAKE_BUILD_TYPE=Release
)
run("${CMAKE_COMMAND}" --build "${build}")
set(arguments "")
if(WITH_PNG)
  set(arguments "${CMAKE_CURRENT_LIST_DIR}/checker.png")
endif()
run("${build}/consumer" ${arguments})
message(STATUS "${run_output}")
