package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/config"
)

// arrange puts the flags of a command before its arguments. The library takes flags that come later for arguments, silently:
// "dlq replay ID --admin URL" would go to the wrong sidecar. It also refuses flags that are unknown, without value or given twice.
func arrange(commands []*cli.Command, args []string) ([]string, error) {
	switch args[0] {
	case "--version", "-version":
		args = append([]string{"version"}, args[1:]...)
	case "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	if args[len(args)-1] == "--generate-bash-completion" {
		return args, nil
	}
	for i, arg := range args {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(arg) })
		if at < 0 {
			return args, nil // --help, or a command that the library will not find
		}
		if len(commands[at].Subcommands) == 0 {
			rest, err := arrangeFlags(commands[at], args[i+1:])
			return append(slices.Clone(args[:i+1]), rest...), err
		}
		commands = commands[at].Subcommands
	}
	return args, nil
}

func arrangeFlags(command *cli.Command, args []string) ([]string, error) {
	var flags, plain []string
	seen := map[string]bool{}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			plain = append(plain, args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			plain = append(plain, arg)
			continue
		}
		name, _, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		if name == "help" || name == "h" {
			return []string{"--help"}, nil
		}
		flag, err := findFlag(command, name)
		if err != nil {
			return nil, err
		}
		if !given && takesValue(flag) {
			if i++; i == len(args) {
				return nil, misuse("--%s needs a value", name)
			}
			arg += "=" + args[i]
		}
		if seen[flag.Names()[0]] && !repeatable(flag) {
			return nil, misuse("--%s is given twice", name)
		}
		seen[flag.Names()[0]] = true
		flags = append(flags, arg)
	}
	if len(plain) > 0 {
		flags = append(append(flags, "--"), plain...)
	}
	return flags, nil
}

func findFlag(command *cli.Command, name string) (cli.Flag, error) {
	var names []string
	for _, flag := range command.Flags {
		if slices.Contains(flag.Names(), name) {
			return flag, nil
		}
		names = append(names, flag.Names()[0])
	}
	if near := config.Nearest(name, names); near != "" {
		return nil, misuse("%s has no flag --%s; is --%s meant?", command.Name, name, near)
	}
	return nil, misuse("%s has no flag --%s; hooksidecar help %s lists them", command.Name, name, command.Name)
}

func takesValue(flag cli.Flag) bool {
	_, boolean := flag.(*cli.BoolFlag)
	return !boolean
}

func repeatable(flag cli.Flag) bool {
	_, slice := flag.(*cli.StringSliceFlag)
	return slice
}

// arguments returns the arguments of a command, which are least to most in number; most < 0: any.
func arguments(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	name := strings.TrimPrefix(c.Command.HelpName, c.App.Name+" ")
	switch {
	case len(args) < least:
		return nil, misuse("%s needs %s", name, c.Command.ArgsUsage)
	case most >= 0 && len(args) > most:
		return nil, misuse("%s: unexpected argument %q", name, args[most])
	}
	return args, nil
}
