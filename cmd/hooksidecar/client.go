package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/config"
)

const (
	defaultAdmin = "http://localhost:9903"
	defaultApp   = "http://localhost:9901"
)

func adminFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "admin", Usage: "`ADDRESS` of the sidecar's admin listener: http://host:port or unix:/path [$HOOKSIDECAR_ADMIN] (default: " + defaultAdmin + ")"},
		tokenFlag(),
	}
}

func tokenFlag() cli.Flag {
	return &cli.StringFlag{Name: "token-file", Usage: "`FILE` with the bearer token, if the sidecar asks for one [$HOOKSIDECAR_TOKEN_FILE]"}
}

// adminClient returns a client of the sidecar that the flags or the environment name.
func (p *program) adminClient(c *cli.Context) (*admin.Client, error) {
	token, err := p.token(c)
	if err != nil {
		return nil, err
	}
	client, err := admin.NewClient(p.choose(c, "admin", "HOOKSIDECAR_ADMIN", defaultAdmin), token)
	if err != nil {
		return nil, misuse("--admin: %v", err)
	}
	return client, nil
}

// appEndpoint returns the app listener that the flags or the environment name.
func (p *program) appEndpoint(c *cli.Context) (*admin.Endpoint, error) {
	token, err := p.token(c)
	if err != nil {
		return nil, err
	}
	endpoint, err := admin.NewEndpoint(p.choose(c, "app", "HOOKSIDECAR_APP", defaultApp), token)
	if err != nil {
		return nil, misuse("--app: %v", err)
	}
	return endpoint, nil
}

func (p *program) token(c *cli.Context) (string, error) {
	path := p.choose(c, "token-file", "HOOKSIDECAR_TOKEN_FILE", "")
	if path == "" {
		return "", nil
	}
	token, err := config.ReadToken(path)
	if err != nil {
		return "", misuse("token file %s: %v", path, err)
	}
	return token, nil
}

// choose returns the flag, else the variable, else the default.
func (p *program) choose(c *cli.Context, flag, env, otherwise string) string {
	if v := c.String(flag); v != "" {
		return v
	}
	if v := p.env(env); v != "" {
		return v
	}
	return otherwise
}
