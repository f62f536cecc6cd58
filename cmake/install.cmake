# `cmake --install` gives users find_package(tersor) and pkg-config.
include(CMakePackageConfigHelpers)

install(TARGETS tersor EXPORT tersor-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/tersor DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT tersor-targets NAMESPACE tersor:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tersor)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/tersor-config.cmake.in
  ${PROJECT_BINARY_DIR}/tersor-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tersor)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tersor-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tersor-config.cmake ${PROJECT_BINARY_DIR}/tersor-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tersor)

# Relative, so that `cmake --install --prefix` may choose another place than was configured.
file(RELATIVE_PATH TERSOR_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
if(TERSOR_HAVE_CUDA)
  set(TERSOR_PC_CUDA_LIBS " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt")
endif()
if(TERSOR_HAVE_OPENSSL)
  string(APPEND TERSOR_PC_TRANSFER_LIBS " -lssl -lcrypto")
endif()
if(TERSOR_HAVE_URING)
  string(APPEND TERSOR_PC_TRANSFER_LIBS " -luring")
endif()
string(APPEND TERSOR_PC_TRANSFER_LIBS " -ldl")
configure_file(${PROJECT_SOURCE_DIR}/cmake/tersor.pc.in ${PROJECT_BINARY_DIR}/tersor.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tersor.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
