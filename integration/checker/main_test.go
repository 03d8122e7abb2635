package checker

import (
	"os"
	"testing"

	"github.com/pgpact/pgpact/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
