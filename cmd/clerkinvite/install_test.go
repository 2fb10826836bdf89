package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tool can be installed as users do it, from a module proxy that has both modules of this repository at the version that go.mod requires.
// Other modules come from Go's module cache or the usual proxy.
func TestGoInstallFromProxy(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	const library = "github.com/clerkinvite/clerkinvite"
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	version := requiredVersion(t, library)
	proxy := t.TempDir()
	files := sources(t, root)
	serveModule(t, proxy, library, version, root, files, "")
	serveModule(t, proxy, library+"/cmd/clerkinvite", version, root, files, "cmd/clerkinvite/")

	// A separate module cache, because the usual one would keep this version forever.
	cache, bin := t.TempDir(), t.TempDir()
	usual := strings.Split(strings.TrimSpace(runCommand(t, "go", "env", "GOMODCACHE", "GOPROXY")), "\n")
	cmd := exec.Command("go", "install", library+"/cmd/clerkinvite@"+version)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOBIN="+bin, "GOMODCACHE="+cache, "GOFLAGS=-modcacherw -buildvcs=false", "GOSUMDB=off",
		"GOPROXY=file://"+filepath.ToSlash(proxy)+",file://"+filepath.ToSlash(usual[0])+"/cache/download,"+usual[1])
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	installed := filepath.Join(bin, "clerkinvite")
	require.Contains(t, runCommand(t, installed, "help"), "Usage: clerkinvite COMMAND")
	require.Contains(t, runCommand(t, "go", "version", "-m", installed), "mod\t"+library+"/cmd/clerkinvite\t"+version)
}

func runCommand(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// requiredVersion returns the version of a module that go.mod requires.
func requiredVersion(t *testing.T, module string) string {
	t.Helper()
	var mod struct {
		Require []struct{ Path, Version string }
		Replace []struct{}
	}
	require.NoError(t, json.Unmarshal([]byte(runCommand(t, "go", "mod", "edit", "-json")), &mod))
	require.Empty(t, mod.Replace, "go install rejects replace directives")
	for _, r := range mod.Require {
		if r.Path == module {
			return r.Version
		}
	}
	t.Fatal("go.mod does not require " + module)
	return ""
}

// sources returns the paths of the repository's files.
func sources(t *testing.T, root string) (files []string) {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files
}

// serveModule writes a module, whose files are below dir, in the form of a proxy.
func serveModule(t *testing.T, proxy, module, version, root string, files []string, dir string) {
	t.Helper()
	at := filepath.Join(proxy, filepath.FromSlash(module), "@v")
	require.NoError(t, os.MkdirAll(at, 0o750))
	var nested []string
	for _, name := range files {
		if path.Base(name) == "go.mod" && strings.HasPrefix(name, dir) && name != dir+"go.mod" {
			nested = append(nested, strings.TrimSuffix(name, "go.mod"))
		}
	}
	f, err := os.Create(filepath.Join(at, version+".zip"))
	require.NoError(t, err)
	z := zip.NewWriter(f)
	for _, name := range files {
		inNested := slices.ContainsFunc(nested, func(n string) bool { return strings.HasPrefix(name, n) })
		if !strings.HasPrefix(name, dir) || inNested {
			continue
		}
		in, err := os.Open(filepath.Join(root, name))
		require.NoError(t, err)
		out, err := z.Create(fmt.Sprintf("%s@%s/%s", module, version, strings.TrimPrefix(name, dir)))
		require.NoError(t, err)
		_, err = io.Copy(out, in)
		require.NoError(t, err)
		require.NoError(t, in.Close())
	}
	require.NoError(t, z.Close())
	require.NoError(t, f.Close())
	mod, err := os.ReadFile(filepath.Join(root, dir, "go.mod"))
	require.NoError(t, err)
	for name, text := range map[string]string{"list": version + "\n", version + ".mod": string(mod), version + ".info": fmt.Sprintf(`{"Version":%q}`, version)} {
		require.NoError(t, os.WriteFile(filepath.Join(at, name), []byte(text), 0o600))
	}
}
