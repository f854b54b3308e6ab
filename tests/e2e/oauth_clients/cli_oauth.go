// github.com/cli/oauth logs in, golang.org/x/oauth2 refreshes, both unchanged: cli_oauth BASE_URL CLIENT_ID
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"net/http"
	"net/url"
	"os"

	"github.com/cli/oauth/device"
	"golang.org/x/oauth2"
)

func say(line map[string]string) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

func main() {
	base, id := os.Args[1]+"/oauth", os.Args[2]
	code, err := device.RequestCode(http.DefaultClient, base+"/device_authorization", id, []string{"cli"})
	if err != nil {
		log.Fatal("request: ", err)
	}
	say(map[string]string{"user_code": code.UserCode})
	token, err := device.PollToken(http.DefaultClient, base+"/token", id, code)
	if err != nil {
		log.Fatal("poll: ", err)
	}
	config := oauth2.Config{ClientID: id, Endpoint: oauth2.Endpoint{TokenURL: base + "/token"}}
	refreshed, err := config.TokenSource(context.Background(), &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	if err != nil {
		log.Fatal("refresh: ", err)
	}
	say(map[string]string{
		"before": token.RefreshToken, "refresh_token": refreshed.RefreshToken, "access_token": refreshed.AccessToken,
	})
	bufio.NewReader(os.Stdin).ReadString('\n')
	answer, err := http.PostForm(base+"/revoke", url.Values{"client_id": {id}, "token": {refreshed.RefreshToken}})
	if err != nil || answer.StatusCode != 200 {
		log.Fatal("revoke: ", err, answer)
	}
}
