package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hooksidecar/hooksidecar"

// mayImport is the package map: which of our packages each package may import. A package that is not here has no place yet:
// give it one, and say here what it may know.
var mayImport = []place{
	{"internal/event", nil, "a leaf: what an event is does not depend on who handles it"},
	{"internal/signature", nil, "a leaf: signing knows bytes, not events"},
	{"internal/backoff", nil, "a leaf: numbers in, a wait out"},
	{"internal/dial", nil, "a leaf: how to connect does not depend on to whom"},
	{"internal/store", nil, "a leaf: the store keeps bytes; what they mean is the business of who put them there"},
	{"internal/config", []string{"internal/event", "internal/signature"}, "it checks patterns and secrets by the packages that read them, so that all problems of a file are told at once"},
	{"internal/dedup", []string{"internal/event", "internal/store"}, "outbox and inbox share it: it may know neither"},
	{"internal/problem", []string{"internal/event", "internal/signature", "internal/store"}, "it gives the errors of leaves their codes"},
	{"internal/deadletter", []string{"internal/event", "internal/store"}, "one shape for both sides: it may know neither"},
	{"internal/admin", []string{"leaves"}, "the command line uses it without taking the whole node along"},
	{"gossip", []string{"leaves"}, "outbox, inbox and gossip never import each other: whoever needs something declares a small interface, and sidecar hands in the value"},
	{"inbox", []string{"leaves"}, "outbox, inbox and gossip never import each other: whoever needs something declares a small interface, and sidecar hands in the value"},
	{"outbox", []string{"leaves"}, "outbox, inbox and gossip never import each other: whoever needs something declares a small interface, and sidecar hands in the value"},
	{"sidecar", []string{"leaves", "gossip", "inbox", "internal/admin", "internal/config", "outbox"}, "it builds the node"},
	{"cmd/hooksidecar", []string{"leaves", "internal/admin", "internal/config", "sidecar"}, "commands speak to a node through sidecar and the admin API only"},
	{"internal/archtest", nil, "it reads go list"},
	{"internal/e2e", nil, "it drives the built program from outside, as a user would"},
	{"internal/bench", []string{"internal/event", "internal/store"}, "it measures what a user sees, and the store below that"},
}

type place struct {
	pkg     string
	imports []string // of ours; "leaves": all of those
	why     string
}

// leaves may be imported by every package above them.
var leaves = []string{"internal/backoff", "internal/deadletter", "internal/dedup", "internal/dial", "internal/event", "internal/problem", "internal/signature", "internal/store"}

// homes are the libraries that have one place each.
var homes = []struct {
	library string
	places  []string
	why     string
}{
	{"github.com/dgraph-io/badger", []string{"internal/store"}, "only the store knows how Badger syncs, fails and loses: elsewhere it would be used without those precautions"},
	{"github.com/hashicorp/memberlist", []string{"gossip"}, "its callbacks must never block: one package takes care of that"},
	{"github.com/hashicorp/go-retryablehttp", []string{"internal/dial", "inbox", "outbox"}, "its defaults close the connections to healthy peers and repeat what was sent: one package tames them"},
	{"github.com/urfave/cli", []string{"cmd/hooksidecar"}, "commands are a surface; nothing below may know of flags"},
	{"go.yaml.in/yaml", []string{"internal/config"}, "files are read strictly, in one place"},
}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list names only %d packages", len(all))
	}
	return all
}

func TestPackageMap(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		at := slices.IndexFunc(mayImport, func(row place) bool { return row.pkg == name })
		if at < 0 {
			t.Errorf("%s has no place in the package map: add it to this test", name)
			continue
		}
		row := mayImport[at]
		allowed := row.imports
		if slices.Contains(allowed, "leaves") {
			allowed = slices.Concat(allowed, leaves)
		}
		for _, path := range p.Imports {
			if ours, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: %s", name, ours, row.why)
			}
		}
	}
}

func TestLibrariesHaveOnePlace(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, home := range homes {
			if slices.Contains(home.places, name) {
				continue
			}
			for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if strings.HasPrefix(path, home.library) {
					t.Errorf("%s imports %s: %s", name, path, home.why)
				}
			}
		}
	}
}
