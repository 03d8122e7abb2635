//go:build unix

package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// browserTimeout bounds one look at the page on a machine that is busy.
const browserTimeout = 2 * time.Minute

// testBrowser opens the page in a real Chromium, on a desk and on a phone, light
// and dark, and looks at what its script has made of the gateway's answer. With
// PGPACT_TEST_SCREENSHOTS=DIR it leaves pictures there.
func (w *watched) testBrowser() {
	w.t.Run("browser", func(t *testing.T) {
		browser := chromium()
		if browser == "" {
			t.Skip("SKIPPED: no chromium on this machine (Debian: apt-get install chromium); the status page has not been looked at")
		}
		clustertest.WaitFor(t, "a line to plot", 10*time.Second, func() bool {
			var s Status
			_, body, _ := w.get("/status.json")
			return json.Unmarshal([]byte(body), &s) == nil && len(s.Samples) > 1
		})
		for _, as := range []struct {
			theme, background string
			width             int
		}{
			{"light", "rgb(246, 247, 249)", 1280},
			{"dark", "rgb(18, 22, 29)", 500}, // as narrow as a window gets; the phone's layout begins at 760
		} {
			t.Run(fmt.Sprintf("%s-%d", as.theme, as.width), func(t *testing.T) {
				dom := look(t, browser, w.url, as.theme, as.width)
				for _, want := range []string{
					`class="badge ok" role="status">ready<`, `<h1 id="name">pgpact watched</h1>`, // what /status.json says of it
					`>committed / s<`, `>0 of 64<`, `<b>a</b>`, `<b>b</b>`, `PostgreSQL `, `<path class="c-two"`, `two-phase <b>`, `Nothing older than a second.`,
					`data-wider="false"`, `data-background="` + as.background + `"`, fmt.Sprintf(`data-dark="%t"`, as.theme == "dark"),
				} {
					if !strings.Contains(dom, want) {
						t.Errorf("the page has no %s", want)
					}
				}
				if t.Failed() {
					t.Log(dom[strings.Index(dom, "<body"):strings.Index(dom, "<script")])
				}
			})
		}
	})
}

func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// look returns the document as it is after some seconds of the browser's time.
func look(t *testing.T, browser, url, theme string, width int) string {
	t.Helper()
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--user-data-dir=" + t.TempDir(), fmt.Sprintf("--window-size=%d,1500", width), "--virtual-time-budget=3000"}
	if theme == "dark" {
		args = append(args, "--blink-settings=preferredColorScheme=0")
	}
	run := func(more ...string) []byte {
		ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, browser, append(args, more...)...)
		cmd.WaitDelay = 5 * time.Second // its helpers hold the pipe
		out, err := cmd.Output()
		if err != nil && len(out) == 0 {
			t.Fatalf("%s: %v", browser, err)
		}
		return out
	}
	if dir := os.Getenv("PGPACT_TEST_SCREENSHOTS"); dir != "" {
		run("--screenshot="+filepath.Join(dir, fmt.Sprintf("%s-%d.png", theme, width)), url)
	}
	return string(run("--dump-dom", url))
}
