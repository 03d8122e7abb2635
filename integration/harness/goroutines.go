package harness

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// Goroutines are the stacks of all goroutines of a gateway, as its port for operators (admin_listen) shows them.
func Goroutines(admin string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/goroutines", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Close = true // or the connection is one more goroutine of the next answer
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", errors.New(answer.Status)
	}
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}
