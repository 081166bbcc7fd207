// Package config turns flags, environment and one YAML file into one checked Config.
//
// One table of settings drives all three: a setting has the same name in the file (section.name), in the
// environment (HOOKSIDECAR_SECTION_NAME, empty means unset) and as a flag (--section-name). Flags win over
// environment, environment over file, file over defaults.
//
// The file is read strictly: what it does not know it refuses, with line and nearest suggestion, since a
// misspelt setting that is ignored is found out too late. Every problem of all sources is reported at once.
//
// It does not look at the machine: whether a port is free or a directory writable is found out by who uses it.
package config
