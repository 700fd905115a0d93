# The data folder lies beside the programs, in the build tree as when installed: bin/ and share/drydock/.
set(DRYDOCK_DATA_DIR ${PROJECT_BINARY_DIR}/share/drydock)

file(GLOB DRYDOCK_MODEL_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/models/data/models/*.json)
file(GLOB DRYDOCK_SYSTEM_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/models/data/systems/*.json)
set(DRYDOCK_DATA_FILES ${PROJECT_SOURCE_DIR}/perfdb/data/perf.db ${PROJECT_SOURCE_DIR}/simulator/data/calibration.json)

add_custom_command(OUTPUT ${DRYDOCK_DATA_DIR}/stamp
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${DRYDOCK_DATA_DIR}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${DRYDOCK_DATA_DIR}/models ${DRYDOCK_DATA_DIR}/systems
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_MODEL_FILES} ${DRYDOCK_DATA_DIR}/models
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_SYSTEM_FILES} ${DRYDOCK_DATA_DIR}/systems
  COMMAND ${CMAKE_COMMAND} -E copy ${DRYDOCK_DATA_FILES} ${DRYDOCK_DATA_DIR}
  COMMAND ${CMAKE_COMMAND} -E touch ${DRYDOCK_DATA_DIR}/stamp
  DEPENDS ${DRYDOCK_MODEL_FILES} ${DRYDOCK_SYSTEM_FILES} ${DRYDOCK_DATA_FILES}
  COMMENT "Copying the data folder" VERBATIM)
add_custom_target(drydock_data ALL DEPENDS ${DRYDOCK_DATA_DIR}/stamp)

install(FILES ${DRYDOCK_MODEL_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock/models)
install(FILES ${DRYDOCK_SYSTEM_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock/systems)
install(FILES ${DRYDOCK_DATA_FILES} DESTINATION ${CMAKE_INSTALL_DATADIR}/drydock)
