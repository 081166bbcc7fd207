package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

const bashCompletion = `# bash completion of hooksidecar: source <(hooksidecar completion bash)
_hooksidecar() {
	local cur="${COMP_WORDS[COMP_CWORD]}"
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	if [[ "$cur" == -* ]]; then words+=("$cur"); fi
	local found
	found="$("${words[@]}" --generate-bash-completion 2>/dev/null)"
	COMPREPLY=($(compgen -W "$found" -- "$cur"))
}
complete -o default -F _hooksidecar hooksidecar
`

const zshCompletion = `#compdef hooksidecar
# zsh completion of hooksidecar: source <(hooksidecar completion zsh)
_hooksidecar() {
	local -a before found
	before=("${(@)words[1,CURRENT-1]}")
	if [[ "${words[CURRENT]}" == -* ]]; then before+=("${words[CURRENT]}"); fi
	found=("${(@f)$("${before[@]}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then _describe 'hooksidecar' found; else _files; fi
}
compdef _hooksidecar hooksidecar
`

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script",
		ArgsUsage: "bash|zsh|fish",
		Action:    p.completion,
	}
}

func (p *program) completion(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	var script string
	switch args[0] {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		if script, err = p.app().ToFishCompletion(); err != nil {
			return err
		}
	default:
		return misuse("completion is there for bash, zsh and fish, not %q", args[0])
	}
	_, err = io.WriteString(p.stdout, script)
	return err
}
