mkdir -p a b /etc/lb
echo "this is a" > a/index.html
echo "this is b" > b/index.html
python3 -m http.server 8001 --bind 127.0.0.1 --directory a &
python3 -m http.server 8002 --bind 127.0.0.1 --directory b &
printf '[[service]]\nname = "www_hello"\noptions = { lb_balance = "round-robin", lb_check = "http /" }\ninstance = [\n{ id = "a", address = "127.0.0.1", port = 8001 },\n{ id = "b", address = "127.0.0.1", port = 8002 },\n]\n' > /etc/lb/services.toml
lb-agent run --services /etc/lb/services.toml --docker off
